"""What tools get that read a tensor's memory, which codes do not have in float32."""

from __future__ import annotations

import weakref

import torch

# float32 values of codes' whole storages, by their address, while a tensor that showed them lives.
_shown: weakref.WeakValueDictionary[tuple, torch.Tensor] = weakref.WeakValueDictionary()


ADVICE = (
    "codes have no float32 memory: save model.state_dict(), which shows its values, or lns_sim.nn.to_float(model), or "
    "write codes by lns_sim.weights.save"
)


class NoStorage(torch.UntypedStorage):
    """The empty storage of a tensor of codes, with an error for who looks into it."""

    def data_ptr(self):
        raise RuntimeError(ADVICE)


class FloatMemory:
    """Memory as :class:`torch.Tensor` has it, for tensors of codes.

    A tensor that a converted model's state_dict gave, or a file, is ``readable``, unless it is a parameter: it shows
    tools a float32 copy of its values, which lives as long as it does. So safetensors, save_pretrained and the like
    write float32 files. Of any other one ``data_ptr`` tells the codes apart from others, as tools use it, no more.
    """

    readable = False
    ATTRIBUTES = ("readable", "_float_memory")

    def _is_read(self) -> bool:
        return self.readable and not isinstance(self, torch.nn.Parameter)

    def _memory(self) -> torch.Tensor:
        """float32 values laid out as the codes' storage is, up to date; views of the same codes share them."""
        codes = self.codes
        storage = codes.untyped_storage()
        key = (storage.data_ptr(), storage.nbytes(), codes.device, codes.dtype)
        size, strides, offset = codes.shape, codes.stride(), codes.storage_offset()
        memory = _shown.get(key)
        if memory is None:
            memory = torch.empty(storage.nbytes() // codes.element_size(), device=codes.device)
        _shown[key] = self._float_memory = memory
        memory.as_strided(size, strides, offset).copy_(self.detach().dequantize())
        return memory

    def data_ptr(self) -> int:
        """An address that no other codes have; of float32 values where the tensor is readable."""
        if not self._is_read():
            return self.codes.data_ptr()
        return self._memory().data_ptr() + 4 * self.codes.storage_offset()

    def untyped_storage(self) -> torch.UntypedStorage:
        """The storage of float32 values where the tensor is readable, else an empty one."""
        if self._is_read():
            return self._memory().untyped_storage()
        storage = torch.Tensor.untyped_storage(self)
        storage.__class__ = NoStorage
        return storage

    def storage(self):
        """As torch's, where the tensor is readable.

        Raises:
            RuntimeError: it is not.
        """
        if not self._is_read():
            raise RuntimeError(ADVICE)
        return torch.TypedStorage(wrap_storage=self.untyped_storage(), dtype=torch.float32, _internal=True)

    def share_memory_(self):
        """Moves the codes to memory that processes share."""
        for name in self.__tensor_flatten__()[0]:
            getattr(self, name).share_memory_()
        return self

    def is_shared(self) -> bool:
        """Do processes share the codes?"""
        return self.codes.is_shared()

    def numpy(self, *, force: bool = False):
        """A copy of the values."""
        return self.dequantize().numpy(force=force)

    def tolist(self) -> list:
        """The values."""
        return self.dequantize().tolist()

    def __dlpack__(self, **kwargs):
        return self.dequantize().__dlpack__(**kwargs)

    def apply_(self, function):
        """Refused.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("apply_ has no form on codes; apply the function to dequantize() and copy_ it back")
