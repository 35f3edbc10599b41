#include "checkpoint/pickle.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace switchyard {
namespace {

// The largest Switch model's 62,000 tensors take 1.6 million values.
constexpr uint64_t kMaxValues = uint64_t{1} << 22;
constexpr size_t kMaxName = 120;  // of a module or function

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

}  // namespace

PickleValue PickleMachine::run() {
  while (!step()) {
  }
  return pop();
}

// Executes one opcode; true at the end.
bool PickleMachine::step() {
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
      push(new_dict());
      break;
    case kEmptyList:
    case kEmptyTuple:
      push_list({});
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
      const Value name = pop(), module = pop();
      push_global(text(module).substr(0, kMaxName) + " " + text(name).substr(0, kMaxName));
      break;
    }
    case kBinPersId:
      push(persistent(pop()));
      break;
    case kReduce: {
      const Value arguments = pop(), function = pop();
      push(call(global(function), list(arguments)));
      break;
    }
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

void PickleMachine::damaged(const std::string& what) const {
  throw Error(join(source_, ": cannot read the pickle: ", what, " (byte ", position_, ")"));
}

const std::string& PickleMachine::text(Value value) const {
  if (value.kind != Kind::kString) damaged("expected a string");
  return strings_[static_cast<size_t>(value.number)];
}
const std::string& PickleMachine::global(Value value) const {
  if (value.kind != Kind::kGlobal) damaged("expected a function or type");
  return globals_[static_cast<size_t>(value.number)];
}
const std::vector<PickleValue>& PickleMachine::list(Value value) const {
  if (value.kind != Kind::kList) damaged("expected a tuple");
  return lists_[static_cast<size_t>(value.number)];
}
const std::vector<std::pair<PickleValue, PickleValue>>& PickleMachine::dict(Value value) const {
  if (value.kind != Kind::kDict) damaged("expected a dict");
  return dicts_[static_cast<size_t>(value.number)];
}
PickleValue PickleMachine::new_dict() {
  dicts_.emplace_back();
  return {Kind::kDict, static_cast<int64_t>(dicts_.size()) - 1};
}

std::span<const std::byte> PickleMachine::take(size_t size) {
  if (size > pickle_.size() - position_) damaged("it is cut short");
  const auto part = pickle_.subspan(position_, size);
  position_ += size;
  return part;
}
template <class T>
T PickleMachine::read() {
  T value;
  std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
  return value;
}
std::string PickleMachine::read_text(size_t size) {
  const auto bytes = take(size);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
std::string PickleMachine::read_line() {
  std::string line;
  for (char letter = read<char>(); letter != '\n'; letter = read<char>()) line += letter;
  return line;
}
int64_t PickleMachine::read_long() {
  const auto bytes = take(read<uint8_t>());
  if (bytes.size() > 8) damaged("a number has more than 64 bits");
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (!bytes.empty() && bytes.size() < 8 && std::to_integer<int>(bytes.back()) >= 0x80)
    value |= ~uint64_t{0} << (8 * bytes.size());
  return static_cast<int64_t>(value);
}

void PickleMachine::push(Value value) {
  if (++num_pushed_ > kMaxValues) damaged(join("it has more than ", kMaxValues, " values"));
  stack_.push_back(value);
}
void PickleMachine::push_string(std::string text) {
  strings_.push_back(std::move(text));
  push({Kind::kString, static_cast<int64_t>(strings_.size()) - 1});
}
void PickleMachine::push_list(std::vector<Value> items) {
  lists_.push_back(std::move(items));
  push({Kind::kList, static_cast<int64_t>(lists_.size()) - 1});
}
void PickleMachine::push_global(const std::string& name) {
  SY_CHECK(is_known(name), source_, ": the pickle asks for \"", name.substr(0, kMaxName),
           "\"; only plain tensors are read, code is never run");
  const auto found = std::find(globals_.begin(), globals_.end(), name);
  const auto number = found - globals_.begin();
  if (found == globals_.end()) globals_.push_back(name);
  push({Kind::kGlobal, number});
}
PickleValue PickleMachine::top() const {
  if (stack_.empty()) damaged("the stack is empty");
  return stack_.back();
}
PickleValue PickleMachine::pop() {
  const Value value = top();
  stack_.pop_back();
  if (!marks_.empty() && marks_.back() > stack_.size()) damaged("it takes more than it put");
  return value;
}
std::vector<PickleValue> PickleMachine::pop_last(size_t count) {
  std::vector<Value> items(count);
  for (size_t i = count; i-- > 0;) items[i] = pop();
  return items;
}
std::vector<PickleValue> PickleMachine::pop_to_mark() {
  if (marks_.empty()) damaged("a mark is missing");
  std::vector<Value> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return items;
}
PickleValue PickleMachine::recall(uint32_t slot) const {
  const auto found = memo_.find(slot);
  if (found == memo_.end()) damaged("it recalls what it never stored");
  return found->second;
}

void PickleMachine::set_items(const std::vector<Value>& items) {
  if (items.size() % 2 != 0 || top().kind != Kind::kDict) damaged("expected a dict and pairs");
  auto& dict = dicts_[static_cast<size_t>(top().number)];
  for (size_t i = 0; i < items.size(); i += 2) dict.emplace_back(items[i], items[i + 1]);
}
void PickleMachine::append(const std::vector<Value>& items) {
  if (top().kind != Kind::kList) damaged("expected a list");
  auto& target = lists_[static_cast<size_t>(top().number)];
  target.insert(target.end(), items.begin(), items.end());
}

}  // namespace switchyard
