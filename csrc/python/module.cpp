// Python bindings of the torch-free core: formats, datapaths, tables, random bits, and what was built. Importing this
// module also loads the operators that csrc/ops registers with torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/log_encoding.h"
#include "cpu/dot_products.h"
#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

lns::Format format(int bits, int gamma) {
  const lns::Format f = {.bits = bits, .gamma = gamma};
  lns::validate(f);
  return f;
}

template <typename Names>
py::tuple names(const Names& fields) {
  return py::tuple(py::cast(std::vector<std::string>(std::begin(fields), std::end(fields))));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Torch-free core of lns_sim";
  m.attr("__version__") = LNS_SIM_VERSION;

  // What numbers without names mean, for the library to compare with its own names.
  py::dict contract;
  contract["version"] = lns::kContractVersion;
  std::vector<std::string> fields;
  for (const lns::DatapathField& f : lns::kDatapathFields) fields.push_back(f.name);
  contract["datapath"] = py::tuple(py::cast(fields));
  std::vector<std::string> log_fields;
  for (const lns::LogDatapathField& f : lns::kLogDatapathFields) log_fields.push_back(f.name);
  contract["log_datapath"] = py::tuple(py::cast(log_fields));
  contract["counters"] = names(lns::counter_names());
  contract["random_state"] = names(lns::kRandomStateFields);
  contract["madam"] = names(lns::kMadamFields);
  m.attr("contract") = contract;

  py::class_<lns::Format>(m, "Format")
      .def(py::init(&format), py::arg("bits"), py::arg("gamma"))
      .def_property_readonly("e_max", &lns::Format::e_max)
      .def("value", [](const lns::Format& f, int code) {
        return lns::dequantize_one(f, lns::QuantizerTables(f.gamma).values.data(), code, lns::scale_bits(0));
      });

  py::class_<lns::QuantizerTables>(m, "QuantizerTables")
      .def(py::init<int, std::vector<int64_t>>(), py::arg("gamma"), py::arg("thresholds") = std::vector<int64_t>())
      .def_readonly("thresholds", &lns::QuantizerTables::thresholds)
      .def_readonly("values", &lns::QuantizerTables::values)
      .def_readonly("inverse_step", &lns::QuantizerTables::inverse_step)
      .def("log_code", [](const lns::QuantizerTables& t, uint32_t float_bits) {
        const lns::Format f = {.bits = 16, .gamma = static_cast<int>(t.thresholds.size())};
        return lns::log_code(t.view(f, lns::Rounding::nearest, lns::Underflow::clamp), float_bits & 0x7fffffffu);
      });

  py::class_<lns::Datapath>(m, "Datapath")
      .def(py::init([](const std::vector<int64_t>& encoded) {
        const lns::Datapath d = lns::decode_datapath(encoded);
        lns::validate(d);
        return d;
      }))
      .def_property_readonly("constants", &lns::lut_constants)
      .def_property_readonly("product_table", &lns::product_table)
      .def("path", [](const lns::Datapath& d, int64_t left_rows, int64_t right_rows, bool blocks) {
        return lns::cpu::path_name(lns::cpu::Engine(d).path(left_rows, right_rows, blocks));
      });

  py::class_<lns::LogDatapath>(m, "LogDatapath")
      .def(py::init([](const std::vector<int64_t>& encoded) {
        const lns::LogDatapath d = lns::decode_log_datapath(encoded);
        lns::validate(d);
        return d;
      }))
      .def_property_readonly("plus", [](const lns::LogDatapath& d) { return lns::log_tables(d).plus; })
      .def_property_readonly("minus", [](const lns::LogDatapath& d) { return lns::log_tables(d).minus; })
      .def("path", [](const lns::LogDatapath& d, int64_t left_rows, int64_t right_rows) {
        return lns::cpu::path_name(lns::cpu::LogEngine(d).path(left_rows, right_rows));
      });

  m.def("default_acc_lsb", [](int bits, int gamma, int acc_bits, int headroom_bits, int product_offset) {
    return lns::default_acc_lsb(format(bits, gamma), acc_bits, headroom_bits, product_offset);
  });
  m.def("philox_word", [](uint64_t seed, uint32_t step, uint32_t tensor, uint64_t element) {
    return lns::philox_word({.seed = seed, .step = step, .tensor = tensor}, static_cast<uint32_t>(element),
                            static_cast<uint32_t>(element >> 32));
  });

  m.def("path_runs", [] {
    py::dict counts;
    const auto runs = lns::cpu::path_runs();
    for (int i = 0; i < lns::cpu::kPaths; ++i) counts[lns::cpu::path_name(static_cast<lns::cpu::Path>(i))] = runs[i];
    return counts;
  });
  m.def("available_isas", &lns::cpu::available_isas);
  m.def("isa", [] { return std::string(lns::cpu::kernels().name); });
  m.def("set_isa", &lns::cpu::set_isa);
  m.def("build_info", [] {
    py::dict d;
    d["version"] = LNS_SIM_VERSION;
    d["compiler"] = LNS_SIM_COMPILER;
    d["torch_abi"] = LNS_SIM_TORCH_ABI;
#ifdef LNS_SIM_CUDA
    d["cuda"] = LNS_SIM_CUDA;
#else
    d["cuda"] = py::none();
#endif
    return d;
  });
}
