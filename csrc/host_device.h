// HOST_DEVICE marks the formulas that the C++ and the CUDA compiler share.
#pragma once

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif
