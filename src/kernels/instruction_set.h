// The instructions that kernels use. Each kernel is compiled for several sets (cmake/SwitchyardKernels.cmake), and one
// is chosen for all of them when the program starts.
#pragma once

namespace switchyard::kernels {

// The set in use, the highest that the processor and its operating system have:
//   plain    the architecture's baseline
//   avx2     with FMA: x86-64-v3
//   avx512   x86-64-v4 with VNNI and BF16
// The environment variable SWITCHYARD_ISA names a lower one. Throws Error if what it names is no set or is missing
// here; kernels then use the highest.
const char* instruction_set();

}  // namespace switchyard::kernels
