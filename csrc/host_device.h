// What the formulas share, whichever compiler and instruction set they are compiled for.
#pragma once

// HOST_DEVICE marks the formulas that the C++ and the CUDA compiler share.
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

// The sources named *_simd.cpp are compiled once for each instruction set, and setup.py names it here. Every
// inline function stands in a namespace of this name: else the linker would keep one copy of it for all, and an
// older processor could meet the newest one's instructions.
#ifndef CPU_LEVEL
#define CPU_LEVEL any_level
#endif
