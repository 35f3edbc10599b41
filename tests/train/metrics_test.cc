#include "train/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <thread>

#include "base/files.h"
#include "testing/scratch_folder.h"
#include "train/tensorboard.h"

namespace switchyard {
namespace {

void put(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

TEST(MetricsWriter, WritesDoublesThatReadBackExactly) {
  const test::ScratchFolder scratch;
  const auto path = scratch / "metrics.jsonl";
  const std::vector<double> numbers = {0.1,
                                       1.0 / 3.0,
                                       5e-324,
                                       1.7976931348623157e308,
                                       -2.2250738585072014e-308,
                                       9007199254740993.0,
                                       std::nextafter(1.0, 2.0)};
  {
    MetricsWriter writer(path, 0);
    writer.write({{"step", 1}, {"numbers", numbers}});
    writer.write({{"step", 2}, {"loss", std::nan("")}});
  }
  const auto text = read_file(path);
  EXPECT_EQ(parse_json(text.substr(0, text.find('\n')), "line").at("numbers").get<std::vector<double>>(), numbers);
  EXPECT_THAT(text, testing::EndsWith("{\"step\":2,\"loss\":null}\n"));
}

TEST(MetricsWriter, ResumingCutsLaterLinesAndATornOne) {
  const test::ScratchFolder scratch;
  const auto path = scratch / "metrics.jsonl";
  const std::string kept = "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n{\"step\":2,\"eval_loss\":2}\n";
  const std::string ends[] = {"",
                              "{\"step\":3,\"loss\":1}\n",
                              "{\"step\":3,\"loss\":1}\n{\"step\":4}\n",
                              "{\"step\":2,\"lo",
                              "{\"step\":2}",
                              "{\"step\":3,\"loss\":1}\n{\"st"};
  for (const auto& end : ends) {
    put(path, kept + end);
    MetricsWriter(path, 2).write({{"step", 3}, {"loss", 0.5}});
    EXPECT_EQ(read_file(path), kept + "{\"step\":3,\"loss\":0.5}\n") << end;
  }
  MetricsWriter(path, 0).write({{"step", 1}});  // from the start again
  EXPECT_EQ(read_file(path), "{\"step\":1}\n");
}

TEST(MetricsWriter, RefusesAFileThatItDidNotWrite) {
  const test::ScratchFolder scratch;
  const auto path = scratch / "metrics.jsonl";
  for (const std::string line : {"hello", "[1]", "{\"loss\":1}", "{\"step\":\"1\"}"}) {
    put(path, "{\"step\":1}\n" + line + "\n");
    try {
      MetricsWriter(path, 5);
      FAIL() << line;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("metrics.jsonl:2"));
    }
    EXPECT_EQ(read_file(path), "{\"step\":1}\n" + line + "\n");
  }
  EXPECT_THROW(MetricsWriter(scratch / "absent" / "metrics.jsonl", 0), Error);
}

// Long lines: the kernel may stop inside one when the process is killed.
TEST(MetricsWriter, ContinuesAfterAKill) {
  const test::ScratchFolder scratch;
  const auto path = scratch / "metrics.jsonl";
  int64_t last = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      MetricsWriter writer(path, last);
      for (int64_t step = last + 1;; ++step) writer.write({{"step", step}, {"load", std::string(20000, 'x')}});
    }
    const auto enough = static_cast<uintmax_t>(last + 5 + attempt) * 20100;
    while (!std::filesystem::exists(path) || std::filesystem::file_size(path) < enough) std::this_thread::yield();
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    { const MetricsWriter resumed(path, int64_t{1} << 60); }
    std::ifstream file(path);
    int64_t next = 1;
    for (std::string line; std::getline(file, line); ++next) ASSERT_EQ(parse_json(line, "line").at("step"), next);
    EXPECT_GE(next, last + 4);
    last = next - 1;
  }
}

TEST(MetricsWriter, AFullDiskLeavesWholeLines) {
  const test::ScratchFolder scratch;
  const auto path = scratch / "metrics.jsonl";
  MetricsWriter writer(path, 0);
  writer.write({{"step", 1}});
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{}, tight{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  tight = before;
  tight.rlim_cur = 30;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  EXPECT_THROW(writer.write({{"step", 2}, {"text", std::string(100, 'x')}}), Error);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(read_file(path), "{\"step\":1}\n");
  writer.write({{"step", 2}});
  EXPECT_EQ(read_file(path), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(Crc32c, MatchesKnownAnswers) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
}

// A reader of records and protobuf fields that shares nothing with the writer.
uint32_t slow_crc32c(const std::string& bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >> 1) ^ 0x82F63B78 : crc >> 1;
  }
  return crc ^ 0xFFFFFFFF;
}
uint32_t slow_masked_crc(const std::string& bytes) {
  const uint32_t crc = slow_crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8;
}
template <class T>
T take(const std::string& bytes, size_t& at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  at += sizeof value;
  return value;
}
uint64_t take_varint(const std::string& bytes, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.at(at++));
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
}
using Fields = std::vector<std::pair<uint64_t, std::string>>;  // number, value: raw bytes, or the varint in decimal
Fields parse_message(const std::string& bytes) {
  Fields fields;
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t tag = take_varint(bytes, at);
    std::string value;
    if ((tag & 7) == 0) {
      value = std::to_string(take_varint(bytes, at));
    } else {
      const size_t size = (tag & 7) == 1 ? 8 : (tag & 7) == 5 ? 4 : take_varint(bytes, at);
      value = bytes.substr(at, size);
      at += size;
    }
    fields.emplace_back(tag >> 3, value);
  }
  return fields;
}
std::vector<std::string> read_records(const std::filesystem::path& path) {
  const auto bytes = read_file(path);
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    const auto header = bytes.substr(at, 8);
    const auto size = take<uint64_t>(bytes, at);
    EXPECT_EQ(take<uint32_t>(bytes, at), slow_masked_crc(header));
    records.push_back(bytes.substr(at, size));
    at += size;
    EXPECT_EQ(take<uint32_t>(bytes, at), slow_masked_crc(records.back()));
  }
  return records;
}
std::string field(const Fields& fields, uint64_t number) {
  for (const auto& [found, value] : fields)
    if (found == number) return value;
  return "absent";
}

TEST(EventWriter, WritesWhatAnIndependentReaderFinds) {
  const test::ScratchFolder scratch;
  {
    EventWriter writer(scratch.path(), 41);
    writer.write(300, {{"step", 300},
                       {"loss", 2.5},
                       {"dropped_fraction", {{"encoder.1", 0.25}, {"decoder.3", 0}}},
                       {"expert_load", {{"encoder.1", {0.5, 0.5}}}},
                       {"note", "text"}});
    writer.write(301, {{"step", 301}, {"note", "nothing to draw"}});
  }
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(scratch.path()), {});
  ASSERT_EQ(files.size(), 1u);
  EXPECT_THAT(files[0].filename().string(), testing::MatchesRegex("events\\.out\\.tfevents\\.[0-9]{10}\\..*"));
  const auto records = read_records(files[0]);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(field(parse_message(records[0]), 3), "brain.Event:2");
  EXPECT_EQ(field(parse_message(records[1]), 2), "42");
  EXPECT_EQ(field(parse_message(field(parse_message(records[1]), 7)), 1), "1");
  const auto event = parse_message(records[2]);
  size_t at = 0;
  EXPECT_NEAR(take<double>(field(event, 1), at), static_cast<double>(std::time(nullptr)), 60.0);
  EXPECT_EQ(field(event, 2), "300");
  std::map<std::string, float> scalars;
  for (const auto& [number, value] : parse_message(field(event, 5))) {
    EXPECT_EQ(number, 1u);
    const auto scalar = parse_message(value);
    at = 0;
    scalars[field(scalar, 1)] = take<float>(field(scalar, 2), at);
  }
  EXPECT_EQ(scalars, (std::map<std::string, float>{
                         {"loss", 2.5f}, {"dropped_fraction/encoder.1", 0.25f}, {"dropped_fraction/decoder.3", 0.0f}}));
}

TEST(EventWriter, TwoInOneSecondAreTwoFiles) {
  const test::ScratchFolder scratch;
  EventWriter first(scratch.path(), 0), second(scratch.path(), 0);
  first.write(1, {{"loss", 1.0}});
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path()), {}), 2);
  EXPECT_THROW(EventWriter(scratch / "absent", 0), Error);
}

}  // namespace
}  // namespace switchyard
