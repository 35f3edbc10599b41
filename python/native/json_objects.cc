#include "native/json_objects.h"

#include "base/error.h"

namespace nb = nanobind;

namespace switchyard {
namespace {

constexpr int kDeepest = 64;

std::string utf8(nb::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) nb::raise_python_error();  // a surrogate without its other half: a ValueError of its own
  return {data, static_cast<size_t>(size)};
}

int64_t integer(nb::handle object, const std::string& place) {
  const auto index = nb::steal(PyNumber_Index(object.ptr()));
  if (!index.is_valid()) nb::raise_python_error();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  SY_CHECK(overflow == 0, place, ": an integer beyond 64 bits");
  return value;
}

Json to_json(nb::handle object, const std::string& place, int depth);

Json object_json(const nb::dict& dict, const std::string& place, int depth) {
  Json json = Json::object();
  for (const auto& [key, value] : dict) {
    SY_CHECK(PyUnicode_Check(key.ptr()), place, ": a key is no str");
    const auto name = utf8(key);
    json[name] = to_json(value, place.empty() ? name : place + "." + name, depth + 1);
  }
  return json;
}

Json to_json(nb::handle object, const std::string& place, int depth) {
  PyObject* const raw = object.ptr();
  SY_CHECK(depth <= kDeepest, place.substr(0, 60), ": nested deeper than ", kDeepest);
  if (object.is_none()) return nullptr;
  if (PyBool_Check(raw)) return raw == Py_True;
  if (PyUnicode_Check(raw)) return utf8(object);
  if (PyFloat_Check(raw)) return PyFloat_AS_DOUBLE(raw);
  if (PyDict_Check(raw)) return object_json(nb::borrow<nb::dict>(object), place, depth);
  if (PyIndex_Check(raw)) return integer(object, place);  // int, and numpy's
  if (PyList_Check(raw) || PyTuple_Check(raw)) {
    Json json = Json::array();
    for (const auto item : nb::borrow(object)) json.push_back(to_json(item, place, depth + 1));
    return json;
  }
  if (nb::hasattr(object, "__fspath__")) {
    const auto path = nb::steal(PyOS_FSPath(raw));
    if (!path.is_valid()) nb::raise_python_error();
    if (PyUnicode_Check(path.ptr())) return utf8(path);
  }
  throw Error(join(place, ": expected a text, a number, a list or a dict, got ", nb::type_name(object.type()).c_str()));
}

}  // namespace

nb::str to_python(const std::string& text) {
  const auto decoded =
      nb::steal<nb::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
  if (!decoded.is_valid()) nb::raise_python_error();
  return decoded;
}

nb::object to_python(const Json& json) {
  if (json.is_null()) return nb::none();
  if (json.is_boolean()) return nb::bool_(json.get<bool>());
  if (json.is_string()) return to_python(json.get_ref<const std::string&>());
  if (json.is_number_float()) return nb::float_(json.get<double>());
  if (json.is_number_unsigned()) return nb::int_(json.get<uint64_t>());
  if (json.is_number_integer()) return nb::int_(json.get<int64_t>());
  if (json.is_array()) {
    nb::list list;
    for (const auto& item : json) list.append(to_python(item));
    return list;
  }
  nb::dict dict;
  for (const auto& [key, value] : json.items()) dict[to_python(key)] = to_python(value);
  return dict;
}

Json to_json(nb::handle object, const std::string& place) { return to_json(object, place, 0); }

}  // namespace switchyard
