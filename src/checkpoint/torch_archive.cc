#include "checkpoint/torch_archive.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/pickle.h"
#include "checkpoint/zip_archive.h"

namespace switchyard {
namespace {

// Arguments can be recalled from the pickle's memo, so that a tensor costs five bytes there, whatever it holds here.
constexpr size_t kMaxTensors = size_t{1} << 18, kMaxAxes = 8;
constexpr size_t kMaxKey = 120;  // of a storage: torch counts them

struct Storage {
  at::ScalarType dtype;
  uint64_t offset;  // in the file
  int64_t numel;
};

std::optional<at::ScalarType> storage_dtype(const std::string& global) {
  const std::pair<const char*, at::ScalarType> types[] = {
      {"FloatStorage", at::kFloat},       {"DoubleStorage", at::kDouble}, {"HalfStorage", at::kHalf},
      {"BFloat16Storage", at::kBFloat16}, {"LongStorage", at::kLong},     {"IntStorage", at::kInt},
      {"ShortStorage", at::kShort},       {"CharStorage", at::kChar},     {"ByteStorage", at::kByte}};
  for (const auto& [name, dtype] : types)
    if (global == std::string("torch ") + name) return dtype;
  return std::nullopt;
}

class StateDictReader final : public PickleMachine {
 public:
  // `bytes` are those of the whole `file`.
  StateDictReader(std::span<const std::byte> pickle, const ZipEntries& entries, std::string prefix,
                  std::span<const std::byte> bytes, std::shared_ptr<const InputFile> file, const std::string& source)
      : PickleMachine(pickle, source),
        entries_(entries),
        prefix_(std::move(prefix)),
        bytes_(bytes),
        file_(std::move(file)) {}

  StoredTensors read() {
    StoredTensors tensors;
    for (const auto& [key, value] : dict(run())) {
      SY_CHECK(key.kind == Kind::kString, source(), ": the state dict has a key that is no name");
      const auto& name = text(key);
      SY_CHECK(value.kind == Kind::kTensor, source(), ": \"", name.substr(0, 120),
               "\" is not a tensor; expected a plain state dict");
      SY_CHECK(tensors.emplace(name, tensors_[static_cast<size_t>(value.number)]).second, source(), ": \"",
               name.substr(0, 120), "\" stands twice in the state dict");
    }
    return tensors;
  }

 private:
  bool is_known(const std::string& name) const override {
    return name == "collections OrderedDict" || name == "torch._utils _rebuild_tensor_v2" ||
           name == "torch._utils _rebuild_parameter" || storage_dtype(name);
  }

  // ("storage", type, key, device, number of elements)
  Value persistent(Value value) override {
    const auto& id = list(value);
    if (id.size() != 5 || id[4].kind != Kind::kNumber) damaged("not a storage");
    const auto dtype = storage_dtype(global(id[1]));
    const auto& key = text(id[2]);
    if (!dtype || key.size() > kMaxKey) damaged("not a storage");
    const auto entry = entries_.find(prefix_ + "data/" + key);
    SY_CHECK(entry != entries_.end(), source(), ": storage ", key, " is missing");
    const auto held = static_cast<int64_t>(entry->second.size() / c10::elementSize(*dtype));
    SY_CHECK(id[4].number >= 0 && id[4].number <= held, source(), ": storage ", key, " has ", held,
             " elements, expected ", id[4].number);
    const auto offset = static_cast<uint64_t>(entry->second.data() - bytes_.data());
    storages_.push_back({*dtype, offset, id[4].number});
    return {Kind::kStorage, static_cast<int64_t>(storages_.size()) - 1};
  }

  Value call(const std::string& function, const std::vector<Value>& arguments) override {
    if (function == "collections OrderedDict") {
      if (!arguments.empty()) damaged("expected an empty OrderedDict");
      return new_dict();
    }
    if (function == "torch._utils _rebuild_parameter") {
      if (arguments.empty() || arguments[0].kind != Kind::kTensor) damaged("expected a parameter's tensor");
      return arguments[0];
    }
    if (function != "torch._utils _rebuild_tensor_v2") damaged("a storage type is no function");
    tensors_.push_back(rebuild_tensor(arguments));
    if (tensors_.size() > kMaxTensors) damaged(join("it has more than ", kMaxTensors, " tensors"));
    return {Kind::kTensor, static_cast<int64_t>(tensors_.size()) - 1};
  }

  std::vector<int64_t> numbers(Value value) const {
    if (list(value).size() > kMaxAxes) damaged("a tensor has too many axes");
    std::vector<int64_t> result;
    for (const Value each : list(value)) {
      if (each.kind != Kind::kNumber) damaged("expected a tuple of numbers");
      result.push_back(each.number);
    }
    return result;
  }

  // (storage, offset, sizes, strides, ...)
  StoredTensor rebuild_tensor(const std::vector<Value>& items) const {
    if (items.size() < 4 || items[0].kind != Kind::kStorage || items[1].kind != Kind::kNumber) damaged("not a tensor");
    const Storage& storage = storages_[static_cast<size_t>(items[0].number)];
    const int64_t offset = items[1].number;
    const auto sizes = numbers(items[2]), strides = numbers(items[3]);
    if (sizes.size() != strides.size() || offset < 0) damaged("not a tensor");
    const bool is_empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
    __int128 numel = 1, last = offset;  // 128 bits hold each step: both are checked before the next
    for (size_t axis = 0; axis < sizes.size() && !is_empty; ++axis) {
      if (sizes[axis] < 0 || strides[axis] < 0) damaged("a tensor has negative sizes or strides");
      numel *= sizes[axis];
      last += static_cast<__int128>(sizes[axis] - 1) * strides[axis];
      if (numel > storage.numel || last >= storage.numel) damaged("a tensor reaches past its storage");
    }
    if (is_empty) return stored_in_memory(at::empty({0}, storage.dtype));  // whatever its sizes: they may overflow
    if (last >= storage.numel) damaged("a tensor reaches past its storage");
    const uint64_t begin = storage.offset + static_cast<uint64_t>(offset) * c10::elementSize(storage.dtype);
    return stored_in_file(file_, begin, storage.dtype, sizes, strides);
  }

  const ZipEntries& entries_;
  std::string prefix_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const InputFile> file_;
  std::vector<Storage> storages_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

StoredTensors list_torch_archive(const std::filesystem::path& path) {
  const auto file = std::make_shared<const InputFile>(path);
  const MappedFile mapping(path);  // for the directory and the pickle
  const std::string source = path.string();
  SY_CHECK(mapping.bytes().size() == file->size(), source, " was changed while it was opened; try again");
  const auto entries = list_zip_entries(mapping.bytes(), source);
  for (const auto& [name, bytes] : entries) {
    if (!name.ends_with("data.pkl")) continue;
    const std::string prefix = name.substr(0, name.size() - std::strlen("data.pkl"));
    const auto order = entries.find(prefix + "byteorder");
    const bool is_big = order != entries.end() && order->second.size() == 3;
    SY_CHECK(!is_big, source, ": big-endian data is not supported");
    return StateDictReader(bytes, entries, prefix, mapping.bytes(), file, source).read();
  }
  throw Error(join(source, ": no data.pkl in it; expected a file that torch.save wrote"));
}

}  // namespace switchyard
