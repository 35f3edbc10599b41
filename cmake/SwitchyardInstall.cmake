# `cmake --install`: the program with its manual page and completion for bash, the headers, the static libraries and a relocatable package, found by
# find_package(Switchyard). Its target Switchyard::switchyard carries every module and what they link.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

get_property(modules GLOBAL PROPERTY SWITCHYARD_MODULES)
add_library(switchyard_library INTERFACE)
set_target_properties(switchyard_library PROPERTIES EXPORT_NAME switchyard)
# Headers include each other as "model/config.h"; users may write <switchyard/model/config.h>.
target_include_directories(switchyard_library INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_link_options(switchyard_library INTERFACE -fopenmp)
foreach(module ${modules})
  set_target_properties(switchyard_${module} PROPERTIES EXPORT_NAME ${module})
  target_include_directories(switchyard_${module} INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/switchyard>")
  target_link_libraries(switchyard_library INTERFACE switchyard_${module})
  install(TARGETS switchyard_${module} EXPORT Switchyard ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}/switchyard")
endforeach()
install(TARGETS switchyard_library EXPORT Switchyard)
install(DIRECTORY src/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/switchyard" FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE)

set(package "${CMAKE_INSTALL_LIBDIR}/cmake/Switchyard")
install(EXPORT Switchyard NAMESPACE Switchyard:: FILE SwitchyardTargets.cmake DESTINATION "${package}")
configure_package_config_file(cmake/SwitchyardConfig.cmake.in SwitchyardConfig.cmake INSTALL_DESTINATION "${package}")
write_basic_package_version_file(SwitchyardConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/SwitchyardConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/SwitchyardConfigVersion.cmake"
              cmake/FindTorchWheel.cmake DESTINATION "${package}")

# Both are made of what the program's --help says.
foreach(made "manual.py;switchyard.1;${CMAKE_INSTALL_MANDIR}/man1" "completion.py;switchyard;${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
  list(GET made 0 script)
  list(GET made 1 name)
  list(GET made 2 place)
  set(file "${CMAKE_CURRENT_BINARY_DIR}/install/${name}")
  install(CODE "file(MAKE_DIRECTORY \"${CMAKE_CURRENT_BINARY_DIR}/install\")
    execute_process(COMMAND \"${SWITCHYARD_PYTHON}\" \"${CMAKE_SOURCE_DIR}/scripts/${script}\" \"$<TARGET_FILE:switchyard>\"
                    OUTPUT_FILE \"${file}\" COMMAND_ERROR_IS_FATAL ANY)")
  install(FILES "${file}" DESTINATION "${place}")
endforeach()
