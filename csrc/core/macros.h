// The one place that knows whether the arithmetic is being compiled for the host alone or for a GPU too.
#pragma once

#if defined(__CUDACC__)
#define LNS_HD __host__ __device__
#else
#define LNS_HD
#endif
