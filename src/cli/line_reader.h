// Lines of a descriptor, such as standard input, for a program that has other work while none has come.
#pragma once

#include <optional>
#include <string>

namespace switchyard {

class LineReader {
 public:
  explicit LineReader(int descriptor) : descriptor_(descriptor) {}

  // The next line without its end ("\n" or "\r\n"); a last one may lack it. Nothing at the end and, unless `wait`,
  // where no whole line has come yet. Throws Error if reading fails.
  std::optional<std::string> next(bool wait);
  bool is_at_end() const { return ended_ && buffer_.empty(); }

 private:
  int descriptor_;
  std::string buffer_;   // read, not given yet
  size_t searched_ = 0;  // bytes of it that hold no line end
  bool ended_ = false;
};

}  // namespace switchyard
