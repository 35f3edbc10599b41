# cmake -DFOLDER=configs/tasks -DOUTPUT=builtin.cc -P embed.cmake: the folder's TOML files as C++ text.
file(GLOB paths "${FOLDER}/*.toml")
list(SORT paths)
set(entries "")
foreach(path ${paths})
  get_filename_component(name "${path}" NAME_WE)
  file(READ "${path}" text)
  string(APPEND entries "    {\"${name}\", R\"toml(${text})toml\"},\n")
endforeach()
file(WRITE "${OUTPUT}.new" "#include \"tasks/builtin.h\"\n
namespace switchyard {\n
std::span<const BuiltinTask> builtin_tasks() {
  static constexpr BuiltinTask kTasks[] = {
${entries}  };
  return kTasks;
}\n
}  // namespace switchyard\n")
execute_process(COMMAND "${CMAKE_COMMAND}" -E copy_if_different "${OUTPUT}.new" "${OUTPUT}")
