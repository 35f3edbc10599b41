#include "checkpoint/torch_archive.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/zip_archive.h"

namespace switchyard {
namespace {

enum class Kind { kNone, kNumber, kString, kList, kDict, kGlobal, kStorage, kTensor };

// A value of the pickle: a number, or an index into the machine's tables, which own everything. Copies are cheap and
// cycles harmless.
struct Value {
  Kind kind = Kind::kNone;
  int64_t number = 0;
};

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

// Pickle opcodes (CPython's pickletools), those that torch.save writes.
enum Op : uint8_t {
  kProto = 0x80,
  kFrame = 0x95,
  kStop = '.',
  kMark = '(',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kBinPut = 'q',
  kLongBinPut = 'r',
  kMemoize = 0x94,
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinUnicode = 'X',
  kShortBinUnicode = 0x8c,
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kBinPersId = 'Q',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kBinFloat = 'G',
  kTrue = 0x88,
  kFalse = 0x89,
  kNone = 'N',
  kReduce = 'R',
  kBuild = 'b',
  kSetItem = 's',
  kSetItems = 'u',
  kAppend = 'a',
  kAppends = 'e'
};

class Machine {
 public:
  // `bytes` are those of the whole `file`.
  Machine(std::span<const std::byte> pickle, const ZipEntries& entries, std::string prefix,
          std::span<const std::byte> bytes, std::shared_ptr<const InputFile> file, const std::string& source)
      : pickle_(pickle),
        entries_(entries),
        prefix_(std::move(prefix)),
        bytes_(bytes),
        file_(std::move(file)),
        source_(source) {}

  StoredTensors run() {
    while (!step()) {
    }
    const Value result = pop(Kind::kDict, "a state dict");
    StoredTensors tensors;
    for (const auto& [key, value] : dicts_[static_cast<size_t>(result.number)]) {
      SY_CHECK(key.kind == Kind::kString, source_, ": the state dict has a key that is no name");
      const auto& name = strings_[static_cast<size_t>(key.number)];
      SY_CHECK(value.kind == Kind::kTensor, source_, ": \"", name.substr(0, 120),
               "\" is not a tensor; expected a plain state dict");
      tensors[name] = tensors_[static_cast<size_t>(value.number)];
    }
    return tensors;
  }

 private:
  // Executes one opcode; true at the end.
  bool step() {
    const auto op = read<uint8_t>();
    switch (op) {
      case kProto:
        read<uint8_t>();
        break;
      case kFrame:
        read<uint64_t>();
        break;
      case kStop:
        return true;
      case kMark:
        marks_.push_back(stack_.size());
        break;
      case kNone:
        push({});
        break;
      case kTrue:
        push({Kind::kNumber, 1});
        break;
      case kFalse:
        push({Kind::kNumber, 0});
        break;
      case kBinInt:
        push({Kind::kNumber, read<int32_t>()});
        break;
      case kBinInt1:
        push({Kind::kNumber, read<uint8_t>()});
        break;
      case kBinInt2:
        push({Kind::kNumber, read<uint16_t>()});
        break;
      case kLong1:
        push({Kind::kNumber, read_long()});
        break;
      case kBinFloat:
        read<uint64_t>();
        push({});
        break;
      case kBinUnicode:
        push_string(read_text(read<uint32_t>()));
        break;
      case kShortBinUnicode:
        push_string(read_text(read<uint8_t>()));
        break;
      case kEmptyDict:
        push_new(Kind::kDict, dicts_);
        break;
      case kEmptyList:
      case kEmptyTuple:
        push_new(Kind::kList, lists_);
        break;
      case kTuple:
        push_list(pop_to_mark());
        break;
      case kTuple1:
        push_list(pop_last(1));
        break;
      case kTuple2:
        push_list(pop_last(2));
        break;
      case kTuple3:
        push_list(pop_last(3));
        break;
      case kBinPut:
        memo_[read<uint8_t>()] = top();
        break;
      case kLongBinPut:
        memo_[read<uint32_t>()] = top();
        break;
      case kMemoize: {
        const auto slot = static_cast<uint32_t>(memo_.size());
        memo_[slot] = top();
        break;
      }
      case kBinGet:
        push(recall(read<uint8_t>()));
        break;
      case kLongBinGet:
        push(recall(read<uint32_t>()));
        break;
      case kGlobal: {
        const auto module = read_line();
        push_global(module + " " + read_line());
        break;
      }
      case kStackGlobal: {
        const auto name = pop_string(), module = pop_string();
        push_global(module + " " + name);
        break;
      }
      case kBinPersId:
        push_storage();
        break;
      case kReduce:
        reduce();
        break;
      case kBuild:
        pop();
        break;  // attributes of a dict: HF's _metadata
      case kSetItem:
        set_items(pop_last(2));
        break;
      case kSetItems:
        set_items(pop_to_mark());
        break;
      case kAppend:
        append(pop_last(1));
        break;
      case kAppends:
        append(pop_to_mark());
        break;
      default:
        damaged(join("opcode ", static_cast<int>(op), " is not one that a state dict needs"));
    }
    return false;
  }

  [[noreturn]] void damaged(const std::string& what) const {
    throw Error(join(source_, ": cannot read the pickle: ", what, " (byte ", position_, ")"));
  }
  std::span<const std::byte> take(size_t size) {
    if (size > pickle_.size() - position_) damaged("it is cut short");
    const auto part = pickle_.subspan(position_, size);
    position_ += size;
    return part;
  }
  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string read_text(size_t size) {
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string read_line() {
    std::string line;
    for (char letter = read<char>(); letter != '\n'; letter = read<char>()) line += letter;
    return line;
  }
  int64_t read_long() {
    const auto bytes = take(read<uint8_t>());
    if (bytes.size() > 8) damaged("a number has more than 64 bits");
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
    if (!bytes.empty() && bytes.size() < 8 && std::to_integer<int>(bytes.back()) >= 0x80)
      value |= ~uint64_t{0} << (8 * bytes.size());
    return static_cast<int64_t>(value);
  }

  void push(Value value) { stack_.push_back(value); }
  void push_string(std::string text) {
    strings_.push_back(std::move(text));
    push({Kind::kString, static_cast<int64_t>(strings_.size()) - 1});
  }
  template <class Table>
  void push_new(Kind kind, Table& table) {
    table.emplace_back();
    push({kind, static_cast<int64_t>(table.size()) - 1});
  }
  void push_list(std::vector<Value> items) {
    lists_.push_back(std::move(items));
    push({Kind::kList, static_cast<int64_t>(lists_.size()) - 1});
  }
  Value top() const {
    if (stack_.empty()) damaged("the stack is empty");
    return stack_.back();
  }
  Value pop() {
    const Value value = top();
    stack_.pop_back();
    if (!marks_.empty() && marks_.back() > stack_.size()) damaged("it takes more than it put");
    return value;
  }
  Value pop(Kind kind, const char* what) {
    const Value value = pop();
    if (value.kind != kind) damaged(std::string("expected ") + what);
    return value;
  }
  std::string pop_string() { return strings_[static_cast<size_t>(pop(Kind::kString, "a string").number)]; }
  std::vector<Value> pop_last(size_t count) {
    std::vector<Value> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }
  std::vector<Value> pop_to_mark() {
    if (marks_.empty()) damaged("a mark is missing");
    std::vector<Value> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  Value recall(uint32_t slot) const {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) damaged("it recalls what it never stored");
    return found->second;
  }
  const std::vector<Value>& list(Value value) const {
    if (value.kind != Kind::kList) damaged("expected a tuple");
    return lists_[static_cast<size_t>(value.number)];
  }
  std::vector<int64_t> numbers(Value value) const {
    if (list(value).size() > 64) damaged("a tensor has too many axes");
    std::vector<int64_t> result;
    for (const Value each : list(value)) {
      if (each.kind != Kind::kNumber) damaged("expected a tuple of numbers");
      result.push_back(each.number);
    }
    return result;
  }

  void set_items(const std::vector<Value>& items) {
    if (items.size() % 2 != 0 || top().kind != Kind::kDict) damaged("expected a dict and pairs");
    auto& dict = dicts_[static_cast<size_t>(top().number)];
    for (size_t i = 0; i < items.size(); i += 2) dict.emplace_back(items[i], items[i + 1]);
  }
  void append(const std::vector<Value>& items) {
    if (top().kind != Kind::kList) damaged("expected a list");
    auto& target = lists_[static_cast<size_t>(top().number)];
    target.insert(target.end(), items.begin(), items.end());
  }

  void push_global(const std::string& name) {
    const bool known = name == "collections OrderedDict" || name == "torch._utils _rebuild_tensor_v2" ||
                       name == "torch._utils _rebuild_parameter" || storage_dtype(name);
    SY_CHECK(known, source_, ": the pickle asks for \"", name.substr(0, 120),
             "\"; only plain tensors are read, code is never run");
    globals_.push_back(name);
    push({Kind::kGlobal, static_cast<int64_t>(globals_.size()) - 1});
  }

  // ("storage", type, key, device, number of elements)
  void push_storage() {
    const auto& id = list(pop());
    if (id.size() != 5 || id[1].kind != Kind::kGlobal || id[2].kind != Kind::kString || id[4].kind != Kind::kNumber)
      damaged("not a storage");
    const auto dtype = storage_dtype(globals_[static_cast<size_t>(id[1].number)]);
    if (!dtype) damaged("not a storage");
    const auto& key = strings_[static_cast<size_t>(id[2].number)];
    const auto entry = entries_.find(prefix_ + "data/" + key);
    SY_CHECK(entry != entries_.end(), source_, ": storage ", key.substr(0, 60), " is missing");
    const auto held = static_cast<int64_t>(entry->second.size() / c10::elementSize(*dtype));
    SY_CHECK(id[4].number >= 0 && id[4].number <= held, source_, ": storage ", key.substr(0, 60), " has ", held,
             " elements, expected ", id[4].number);
    const auto offset = static_cast<uint64_t>(entry->second.data() - bytes_.data());
    storages_.push_back({*dtype, offset, id[4].number});
    push({Kind::kStorage, static_cast<int64_t>(storages_.size()) - 1});
  }

  void reduce() {
    const Value arguments = pop();
    const auto& name = globals_[static_cast<size_t>(pop(Kind::kGlobal, "a function").number)];
    const auto& items = list(arguments);
    if (name == "collections OrderedDict") {
      if (!items.empty()) damaged("expected an empty OrderedDict");
      push_new(Kind::kDict, dicts_);
    } else if (name == "torch._utils _rebuild_parameter") {
      if (items.empty() || items[0].kind != Kind::kTensor) damaged("expected a parameter's tensor");
      push(items[0]);
    } else if (name == "torch._utils _rebuild_tensor_v2") {
      rebuild_tensor(items);
    } else {
      damaged("a storage type is no function");
    }
  }

  // (storage, offset, sizes, strides, ...)
  void rebuild_tensor(const std::vector<Value>& items) {
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
    if (!is_empty && last >= storage.numel) damaged("a tensor reaches past its storage");
    const uint64_t begin = storage.offset + static_cast<uint64_t>(offset) * c10::elementSize(storage.dtype);
    tensors_.push_back(is_empty
                           ? stored_in_memory(at::empty({0}, storage.dtype))  // whatever its sizes: they may overflow
                           : stored_in_file(file_, begin, storage.dtype, sizes, strides));
    push({Kind::kTensor, static_cast<int64_t>(tensors_.size()) - 1});
  }

  std::span<const std::byte> pickle_;
  const ZipEntries& entries_;
  std::string prefix_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const InputFile> file_;
  const std::string& source_;
  size_t position_ = 0;
  std::vector<Value> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::vector<std::string> strings_, globals_;
  std::vector<std::vector<Value>> lists_;
  std::vector<std::vector<std::pair<Value, Value>>> dicts_;
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
    return Machine(bytes, entries, prefix, mapping.bytes(), file, source).run();
  }
  throw Error(join(source, ": no data.pkl in it; expected a file that torch.save wrote"));
}

}  // namespace switchyard
