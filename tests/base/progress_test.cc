#include "base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <unistd.h>

#include <algorithm>

namespace switchyard {
namespace {

TEST(FormatDuration, UsesTheLargestUnitsThatMatter) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(75), "1:15");
  EXPECT_EQ(format_duration(3725), "1:02:05");
  EXPECT_EQ(format_duration(90061), "1d 1:01:01");
}

const ProgressLine kLine{.name = "train",
                         .unit = "steps",
                         .text = "loss 3.250  1234 tok/s",
                         .done = 250,
                         .total = 1000,
                         .elapsed = 62,
                         .left = 186};

TEST(FormatProgress, ShowsEverythingWhereThereIsRoom) {
  EXPECT_EQ(format_progress(kLine, 0), "train  250/1000 steps  25%  loss 3.250  1234 tok/s  1:02 < 3:06");
  EXPECT_EQ(format_progress(kLine, 120),
            "train  [#######.......................]  250/1000 steps  25%  loss 3.250  1234 tok/s  1:02 < 3:06");
}

TEST(FormatProgress, FitsAnyWidth) {
  for (int width = 1; width <= 150; ++width) EXPECT_LE(static_cast<int>(format_progress(kLine, width).size()), width);
  EXPECT_THAT(format_progress(kLine, 60),
              testing::EndsWith("1:02 < 3:06"));  // the text gives way to the time that is left
  EXPECT_THAT(format_progress(kLine, 60), testing::HasSubstr("250/1000"));
}

TEST(FormatProgress, ShowsTimesForSeconds) {
  EXPECT_EQ(format_progress({.name = "compare", .unit = "s", .text = "", .done = 90, .total = 600, .elapsed = 95}, 0),
            "compare  1:30/10:00  15%  1:35 < ?");
}

TEST(FormatProgress, ShowsNoShareOfAnUnknownTotal) {
  EXPECT_EQ(format_progress({.name = "read", .unit = "MB", .text = "fast", .done = 90, .elapsed = 95}, 80),
            "read  90 MB  fast  1:35");
}

std::string content(std::FILE* file) {
  std::string text;
  std::rewind(file);
  for (int letter; (letter = std::fgetc(file)) != EOF;) text += static_cast<char>(letter);
  return text;
}
int64_t count(const std::string& text, char letter) { return std::count(text.begin(), text.end(), letter); }

std::shared_ptr<MessageSink> to(std::FILE* file) { return std::make_shared<FileMessages>(file); }

TEST(Progress, WritesAFewPlainLinesToAFile) {
  std::FILE* file = std::tmpfile();
  double now = 0;
  {
    Progress progress({.name = "train", .after_seconds = 0, .sink = to(file), .clock = [&] { return now; }}, 1000);
    for (int step = 1; step <= 1000; ++step, now += 0.01) progress.update(step, "loss 1");
    progress.finish();
  }
  const auto text = content(file);
  EXPECT_EQ(count(text, '\n'), 11) << text;  // the first step, then each tenth, the end among them
  EXPECT_EQ(count(text, '\r'), 0);
  EXPECT_THAT(text, testing::EndsWith("train  1000/1000 steps  100%  loss 1  0:10\n"));
  std::fclose(file);
}

TEST(Progress, WritesALineAMinuteToAFileWhenSlow) {
  std::FILE* file = std::tmpfile();
  double now = 0;
  Progress progress({.name = "train", .after_seconds = 0, .sink = to(file), .clock = [&] { return now; }}, 1e6);
  for (int step = 1; step <= 601; ++step, now += 1.0) progress.update(step, "");
  EXPECT_EQ(count(content(file), '\n'), 11);
  std::fclose(file);
}

TEST(Progress, CountsTheTimeLeftFromWhereItResumed) {
  std::FILE* file = std::tmpfile();
  double now = 0;
  Progress progress({.name = "train", .after_seconds = 0, .sink = to(file), .clock = [&] { return now; }}, 1000);
  progress.update(500, "");
  now = 100;  // 2 s a step
  progress.update(550, "");
  now = 200;
  progress.update(600, "");
  EXPECT_THAT(content(file), testing::EndsWith("600/1000 steps  60%  3:20 < 13:20\n"));
  std::fclose(file);
}

TEST(Progress, QuietIsSilent) {
  std::FILE* file = std::tmpfile();
  {
    Progress progress({.name = "train", .quiet = true, .sink = to(file)}, 10);
    for (int step = 1; step <= 10; ++step) progress.update(step, "loss");
    progress.finish();
  }
  EXPECT_EQ(content(file), "");
  std::fclose(file);
}

TEST(Progress, ShortWorkIsSilent) {
  std::FILE* file = std::tmpfile();
  double now = 0;
  Progress progress({.name = "convert", .unit = "tensors", .sink = to(file), .clock = [&] { return now; }}, 100);
  for (int done = 1; done <= 50; ++done, now += 0.03) progress.update(done, "");
  EXPECT_EQ(content(file), "");
  for (int done = 51; done <= 100; ++done, now += 0.03) progress.update(done, "");
  progress.finish();
  EXPECT_THAT(content(file), testing::HasSubstr("convert  100/100 tensors  100%"));
  std::fclose(file);
}

// Stands for a program that shows messages in its own way.
class Recorder : public MessageSink {
 public:
  void message(const std::string& line) override { seen.push_back(line); }
  void progress(const ProgressLine& line) override { seen.push_back(join(line.name, " ", line.done)); }
  void end_progress() override { seen.push_back("end"); }
  bool redraws() const override { return false; }
  std::vector<std::string> seen;
};

TEST(Messages, GoToTheProgramsSink) {
  const auto recorder = std::make_shared<Recorder>();
  set_message_sink(recorder);
  say("3 files, ", 2.5, " MB");
  {
    Progress progress({.name = "read", .after_seconds = 0}, 10);
    progress.update(1, "");
    progress.update(10, "");
  }  // ends without finish(), as after an exception
  set_message_sink(nullptr);
  EXPECT_THAT(recorder->seen, testing::ElementsAre("3 files, 2.5 MB", "read 1", "read 10", "end"));
}

TEST(Messages, AFileGetsWholeLines) {
  std::FILE* file = std::tmpfile();
  FileMessages messages(file);
  messages.message("one");
  messages.progress({.name = "train", .unit = "steps", .text = "", .done = 1, .total = 2});
  messages.message("two");
  messages.end_progress();
  EXPECT_EQ(content(file), "one\ntrain  1/2 steps  50%  0:00 < ?\ntwo\n");
  std::fclose(file);
}

TEST(Progress, RedrawsInPlaceOnATerminal) {
  int master = -1, slave = -1;
  winsize size{};
  size.ws_col = 40;
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, &size), 0);
  std::FILE* terminal = ::fdopen(slave, "w");
  double now = 0;
  {
    Progress progress({.name = "train", .after_seconds = 0, .sink = to(terminal), .clock = [&] { return now; }}, 1000);
    for (int step = 1; step <= 50; ++step, now += 0.02)
      progress.update(step, "loss 1.2345  and much more than fits on a line");
  }  // ends without finish(), as after an exception
  // The kernel hands a terminal's output on in pieces of its choosing; the last one ends the line.
  std::string text;
  pollfd ready{.fd = master, .events = POLLIN, .revents = 0};
  while (!text.ends_with('\n') && ::poll(&ready, 1, 2000) > 0) {
    char buffer[4096];
    const auto length = ::read(master, buffer, sizeof buffer);
    ASSERT_GT(length, 0);
    text.append(buffer, static_cast<size_t>(length));
  }
  EXPECT_EQ(count(text, '\n'), 1);
  const auto draws = std::count(text.begin(), text.end(), '\033');
  EXPECT_GE(draws, 4);  // one second at five a second
  EXPECT_LE(draws, 6);
  for (size_t begin = text.find('\r'); begin != std::string::npos;) {
    const auto end = text.find("\033[K", begin);
    if (end == std::string::npos) break;
    EXPECT_LT(end - begin - 1, 40u);
    begin = text.find('\r', end);
  }
  std::fclose(terminal);
  ::close(master);
}

}  // namespace
}  // namespace switchyard
