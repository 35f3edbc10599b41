# Finds libtorch inside the `torch` pip wheel of the project's venv and makes torch::c10 and torch::cpu of it, and of a
# CUDA wheel torch::cuda, which every user of torch::cpu then links.
#
# Input:  TORCH_WHEEL_DIR (the wheel's `torch` folder); by default asked from ${SWITCHYARD_PYTHON}, without importing torch.
# Output: targets torch::c10, torch::cpu, torch::cuda (CUDA wheels); TORCH_WHEEL_VERSION. Accepts 2.11 to 2.13.
# Not find_package(Torch): its config enables CUDA and Python probes and appends global flags.

set(SWITCHYARD_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python3" CACHE FILEPATH "Python whose environment holds the torch wheel")

if(NOT TORCH_WHEEL_DIR)
  execute_process(
    COMMAND "${SWITCHYARD_PYTHON}" -c
            "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE TORCH_WHEEL_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT EXISTS "${TORCH_WHEEL_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "No torch wheel found (looked through ${SWITCHYARD_PYTHON}). "
                      "Run `make setup`, or pass -DTORCH_WHEEL_DIR=<site-packages>/torch.")
endif()
set(TORCH_WHEEL_DIR "${TORCH_WHEEL_DIR}" CACHE PATH "The torch wheel's `torch` folder" FORCE)

file(STRINGS "${TORCH_WHEEL_DIR}/include/torch/headeronly/version.h" _version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
foreach(_part MAJOR MINOR PATCH)
  string(REGEX MATCH "TORCH_VERSION_${_part} ([0-9]+)" _ "${_version_lines}")
  set(_${_part} "${CMAKE_MATCH_1}")
endforeach()
set(TORCH_WHEEL_VERSION "${_MAJOR}.${_MINOR}.${_PATCH}")
if(TORCH_WHEEL_VERSION VERSION_LESS 2.11 OR TORCH_WHEEL_VERSION VERSION_GREATER_EQUAL 2.14)
  message(FATAL_ERROR "torch ${TORCH_WHEEL_VERSION} in ${TORCH_WHEEL_DIR}: expected 2.11 to 2.13. Run `make setup`.")
endif()

if(NOT TARGET torch::cpu)
  add_library(torch::c10 SHARED IMPORTED)
  set_target_properties(torch::c10 PROPERTIES IMPORTED_LOCATION "${TORCH_WHEEL_DIR}/lib/libc10.so")
  add_library(torch::cpu SHARED IMPORTED)
  set_target_properties(torch::cpu PROPERTIES IMPORTED_LOCATION "${TORCH_WHEEL_DIR}/lib/libtorch_cpu.so")
  target_include_directories(torch::cpu SYSTEM INTERFACE "${TORCH_WHEEL_DIR}/include" "${TORCH_WHEEL_DIR}/include/torch/csrc/api/include")
  target_link_libraries(torch::cpu INTERFACE torch::c10)
  # Per-operator headers only: they halve the compile time of a unit.
  target_compile_definitions(torch::cpu INTERFACE USE_DISTRIBUTED USE_C10D_GLOO AT_PER_OPERATOR_HEADERS TORCH_ASSERT_ONLY_METHOD_OPERATORS)
  target_compile_features(torch::cpu INTERFACE cxx_std_20)
endif()
# libtorch_cuda registers the device's operations when it is loaded; no symbol of it is used, so the linker has to be kept
# from dropping it. It needs the CUDA packages beside torch when it runs (its own search path finds them), not at link time.
if(EXISTS "${TORCH_WHEEL_DIR}/lib/libtorch_cuda.so" AND NOT TARGET torch::cuda)
  add_library(torch::cuda INTERFACE IMPORTED)
  target_link_options(torch::cuda INTERFACE "LINKER:--allow-shlib-undefined"
    "LINKER:--push-state,--no-as-needed,${TORCH_WHEEL_DIR}/lib/libc10_cuda.so,${TORCH_WHEEL_DIR}/lib/libtorch_cuda.so,--pop-state")
  target_link_libraries(torch::cpu INTERFACE torch::cuda)
endif()
set(TorchWheel_FOUND TRUE)
if(TARGET torch::cuda)
  message(STATUS "torch ${TORCH_WHEEL_VERSION} in ${TORCH_WHEEL_DIR}, with CUDA")
else()
  message(STATUS "torch ${TORCH_WHEEL_VERSION} in ${TORCH_WHEEL_DIR}, for the processor alone: --device cuda needs a CUDA wheel")
endif()
