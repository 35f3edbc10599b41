# switchyard_kernels(NAME sources... [OPTIONS options...]): adds sources to the module NAME, compiled once for each set of
# instructions; when the program starts, src/kernels/instruction_set.cc chooses the set that the processor has.
#
# The sources know nothing of it: they are written for one set, which lanes.h takes from the compiler's macros. The three
# compilations are joined into one object by cmake/join_kernels.sh, in which every function of the namespace
# switchyard::kernels is a jump to the chosen copy, and nothing else can be seen from outside. So no inline function or
# template of a header that was compiled with AVX-512 can ever stand in for the same one elsewhere.
#
# On other architectures, and where GNU ld is missing, there is the plain form alone.

find_program(SWITCHYARD_JOIN_LINKER NAMES ld.bfd DOC "GNU ld, which joins the copies of a kernel")

# The least processor: whatever the rest of the program is compiled for.
set(kernel_options_plain "")
set(kernel_options_avx2 -march=x86-64-v3)
set(kernel_options_avx512 -march=x86-64-v4 -mavx512bf16 -mavx512vnni -mprefer-vector-width=512)

function(switchyard_kernels module)
  cmake_parse_arguments(arg "" "" "OPTIONS" ${ARGN})
  set(sources ${arg_UNPARSED_ARGUMENTS})
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR NOT SWITCHYARD_JOIN_LINKER)
    target_sources(switchyard_${module} PRIVATE ${sources})
    set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "${arg_OPTIONS}")
    return()
  endif()
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/instruction_sets")
  set(objects)
  foreach(set plain avx2 avx512)
    add_library(${module}_${set} OBJECT ${sources})
    target_include_directories(${module}_${set} PRIVATE "${CMAKE_SOURCE_DIR}/src")
    # Unique symbols, as sanitizers make of constants, cannot be made local. GCC 12 warns inside its own AVX-512 header
    # (its bug 105593).
    target_compile_options(${module}_${set} PRIVATE ${kernel_options_${set}} ${arg_OPTIONS}
      $<$<AND:$<BOOL:${SWITCHYARD_SANITIZE}>,$<CXX_COMPILER_ID:GNU>>:-fno-gnu-unique>
      -Wno-maybe-uninitialized -Wno-uninitialized)
    file(GENERATE OUTPUT "${folder}/${set}.list" CONTENT "$<JOIN:$<TARGET_OBJECTS:${module}_${set}>,\n>\n")
    list(APPEND objects $<TARGET_OBJECTS:${module}_${set}>)
  endforeach()
  set(script "${CMAKE_SOURCE_DIR}/cmake/join_kernels.sh")
  add_custom_command(OUTPUT "${folder}/${module}.o"
    COMMAND "${script}" "${folder}" ${module} "${SWITCHYARD_JOIN_LINKER}" "${CMAKE_NM}" "${CMAKE_OBJCOPY}"
    DEPENDS ${objects} "${script}" COMMENT "Joining the kernels of ${module}" VERBATIM)
  set_source_files_properties("${folder}/${module}.o" PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  target_sources(switchyard_${module} PRIVATE "${folder}/${module}.o")
  target_compile_definitions(switchyard_${module} PRIVATE SWITCHYARD_INSTRUCTION_SETS)
endfunction()
