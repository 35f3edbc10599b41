# One static library a folder of src/, one test program a folder of tests/.

include(SwitchyardKernels)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

# -fopenmp as an option rather than OpenMP::OpenMP_CXX: the latter adds a full path to the system's libgomp,
# while torch brings its own under the same soname.
# -Wno-restrict: GCC 12 warns inside std::string where nothing is wrong (GCC bug 105651).
add_compile_options(-Wno-restrict -Wall -Wextra -Wshadow -Wno-unknown-pragmas -fopenmp)
add_link_options(-fopenmp)
# GCC collects its garbage from 128 MB on: a tenth of the time of a unit with torch's headers, which needs 0.6 to 1 GB.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  add_compile_options(--param=ggc-min-heapsize=524288)
endif()
if(SWITCHYARD_WERROR)
  add_compile_options(-Werror)
endif()
if(SWITCHYARD_SANITIZE)
  add_compile_options(-fsanitize=${SWITCHYARD_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  # A vector's or span's own bounds: inside a larger allocation AddressSanitizer cannot see them.
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
  add_link_options(-fsanitize=${SWITCHYARD_SANITIZE})
endif()

# Light forms of two headers that each of torch's per-operator headers includes for nothing: 2 of 3.5 seconds a unit.
# A precompiled header was measured instead: 300 MB to read for each unit, which costs what it saves.
include_directories(BEFORE SYSTEM "${CMAKE_SOURCE_DIR}/cmake/torch_headers")

# For code that only arranges what others compute (commands, reports, tests): its templates are a third of what the
# compiler generates, and nobody waits for them.
set(SWITCHYARD_COLD "$<$<CONFIG:Release>:-O1>")

# switchyard_module(NAME sources... [LINK targets...]): the static library switchyard_NAME of src/NAME.
function(switchyard_module name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_library(switchyard_${name} STATIC ${arg_UNPARSED_ARGUMENTS})
  target_include_directories(switchyard_${name} PUBLIC "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>")
  target_link_libraries(switchyard_${name} PUBLIC ${arg_LINK})
  set_property(GLOBAL APPEND PROPERTY SWITCHYARD_MODULES ${name})
endfunction()

# switchyard_test(NAME sources... [LINK targets...] [LABELS labels...] [EACH_INSTRUCTION_SET]): program NAME_test and one
# ctest entry, or one for each set of instructions that kernels are compiled for. The entry sees SWITCHYARD_DATA, SWITCHYARD_PROGRAM and SWITCHYARD_SOURCE. Its threads sleep at barriers: where they spin,
# a busy machine makes tests take minutes.
function(switchyard_test name)
  cmake_parse_arguments(arg "EACH_INSTRUCTION_SET" "" "LINK;LABELS" ${ARGN})
  add_executable(${name}_test ${arg_UNPARSED_ARGUMENTS})
  target_include_directories(${name}_test PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_compile_options(${name}_test PRIVATE ${SWITCHYARD_COLD})
  target_link_libraries(${name}_test PRIVATE ${arg_LINK} GTest::gmock GTest::gtest GTest::gtest_main)
  if(DEFINED ENV{SWITCHYARD_DATA})
    set(data "$ENV{SWITCHYARD_DATA}")
  else()
    set(data "${CMAKE_SOURCE_DIR}/../shared/data")
  endif()
  set(environment
    "SWITCHYARD_DATA=${data};SWITCHYARD_PROGRAM=${CMAKE_BINARY_DIR}/switchyard;SWITCHYARD_SOURCE=${CMAKE_SOURCE_DIR};OMP_WAIT_POLICY=passive")
  add_test(NAME ${name} COMMAND ${name}_test)
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" ENVIRONMENT "${environment}")
  if(arg_EACH_INSTRUCTION_SET)  # the highest one is what the entry above runs with
    foreach(set avx2 plain)
      add_test(NAME ${name}_${set} COMMAND ${name}_test)
      set_tests_properties(${name}_${set} PROPERTIES LABELS "${arg_LABELS}" ENVIRONMENT "${environment};SWITCHYARD_ISA=${set}")
    endforeach()
  endif()
endfunction()
