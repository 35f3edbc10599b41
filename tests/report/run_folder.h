// A scratch folder with runs in it, removed at the end of a test.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace switchyard {

class RunFolder {
 public:
  RunFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "report_test.XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  RunFolder(const RunFolder&) = delete;
  ~RunFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path put(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
    return (path_ / name).parent_path();
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace switchyard
