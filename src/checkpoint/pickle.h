// The machine that runs a pickle (CPython's pickletools) as far as torch.save's files need it: dictionaries, lists,
// numbers, strings, and calls of the few functions that a reader knows. Nothing is imported and no code is run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace switchyard {

enum class PickleKind { kNone, kNumber, kString, kList, kDict, kGlobal, kStorage, kTensor };

// A number, or an index into the tables of the machine (storages and tensors: of its reader), which own everything.
// Copies are cheap and cycles harmless.
struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  int64_t number = 0;
};

class PickleMachine {
 public:
  // Both must outlive the object; `source` stands in messages.
  PickleMachine(std::span<const std::byte> pickle, const std::string& source) : pickle_(pickle), source_(source) {}
  PickleMachine(const PickleMachine&) = delete;
  PickleMachine& operator=(const PickleMachine&) = delete;
  virtual ~PickleMachine() = default;

  // Runs to the end and gives the value that is left. Throws Error, naming the byte, where the pickle is damaged, needs
  // an opcode or a function that is not known, or makes more values than a state dict has.
  PickleValue run();

 protected:
  using Value = PickleValue;
  using Kind = PickleKind;

  // Whether the reader knows "module name".
  virtual bool is_known(const std::string& global) const = 0;
  // The object that an id stands for which is kept outside the pickle.
  virtual Value persistent(Value id) = 0;
  // What a known function makes of its arguments.
  virtual Value call(const std::string& function, const std::vector<Value>& arguments) = 0;

  [[noreturn]] void damaged(const std::string& what) const;
  // These refuse a value of another kind. References hold until the machine goes on.
  const std::string& text(Value value) const;
  const std::string& global(Value value) const;
  const std::vector<Value>& list(Value value) const;
  const std::vector<std::pair<Value, Value>>& dict(Value value) const;
  Value new_dict();
  const std::string& source() const { return source_; }

 private:
  bool step();
  std::span<const std::byte> take(size_t size);
  template <class T>
  T read();
  std::string read_text(size_t size);
  std::string read_line();
  int64_t read_long();

  void push(Value value);
  void push_string(std::string text);
  void push_list(std::vector<Value> items);
  void push_global(const std::string& name);
  Value top() const;
  Value pop();
  std::vector<Value> pop_last(size_t count);
  std::vector<Value> pop_to_mark();
  Value recall(uint32_t slot) const;
  void set_items(const std::vector<Value>& items);
  void append(const std::vector<Value>& items);

  std::span<const std::byte> pickle_;
  const std::string& source_;
  size_t position_ = 0;
  uint64_t num_pushed_ = 0;
  std::vector<Value> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::vector<std::string> strings_, globals_;
  std::vector<std::vector<Value>> lists_;
  std::vector<std::vector<std::pair<Value, Value>>> dicts_;
};

}  // namespace switchyard
