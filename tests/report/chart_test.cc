#include "report/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>
#include <sstream>

#include "report/heat_map.h"
#include "report/html.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Ticks, AreRound) {
  EXPECT_THAT(ticks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(ticks(3.1, 5.9, 6), ElementsAre(testing::DoubleEq(3.5), 4, 4.5, 5, testing::DoubleEq(5.5)));
  EXPECT_THAT(ticks(-1, 1, 2), ElementsAre(-1, 0, 1));
  EXPECT_FALSE(std::signbit(ticks(0, 1000, 4)[0]));
  EXPECT_THAT(ticks(2, 2, 5), ElementsAre(2));
  EXPECT_LE(ticks(-1e308, 1e308, 5).size(), 100u);
}

TEST(Smooth, KeepsStraightLinesAndTheLength) {
  std::vector<std::pair<double, double>> line, spike(11, {0.0, 0.0});
  for (int n = 0; n < 20; ++n) line.emplace_back(n, 3.0 * n);
  const auto smoothed = smooth(line, 6);
  ASSERT_EQ(smoothed.size(), line.size());
  for (size_t n = 0; n < line.size(); ++n) EXPECT_NEAR(smoothed[n].second, line[n].second, 1e-9);
  spike[5].second = 7.0;
  EXPECT_NEAR(smooth(spike, 6)[5].second, 1.0, 1e-12);  // three on each side
  EXPECT_NEAR(smooth(spike, 6)[2].second, 0.0, 1e-12);  // two on each side, so near the start
}

std::vector<std::pair<double, double>> polyline(const std::string& svg) {
  std::smatch found;
  if (!std::regex_search(svg, found, std::regex("class='line [^>]*points='([^']*)'"))) return {};
  std::vector<std::pair<double, double>> points;
  std::istringstream text(found[1].str());
  double x, y;
  for (char comma; text >> x >> comma >> y;) points.emplace_back(x, y);
  return points;
}

TEST(DrawChart, PlacesPointsLinearly) {
  const auto points = polyline(draw_chart({.title = "t",
                                           .x_label = "step",
                                           .y_label = "loss",
                                           .lines = {{.name = "a", .points = {{0, 1}, {50, 2}, {200, 4}}}}}));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_LT(points[0].first, points[1].first);
  EXPECT_NEAR((points[1].first - points[0].first) / (points[2].first - points[0].first), 0.25, 1e-4);
  EXPECT_NEAR((points[0].second - points[1].second) / (points[0].second - points[2].second), 1.0 / 3.0, 1e-4);
  EXPECT_GT(points[0].second, points[2].second);  // SVG's y axis points down
}

TEST(DrawChart, ThinsLongLinesWithoutLosingTheirEnds) {
  ChartLine line{.name = "a", .points = {}};
  for (int n = 0; n < 100000; ++n) line.points.emplace_back(n, n);
  const auto svg = draw_chart({.title = "t", .x_label = "step", .y_label = "loss", .lines = {line}});
  EXPECT_LT(svg.size(), 20000u);
  const auto points = polyline(svg);
  EXPECT_NEAR(points.back().first - points.front().first, 484, 3);  // the plot's width
}

TEST(DrawChart, LetsTheStartLeaveTheRange) {
  const std::vector<std::pair<double, double>> points = {{0, 100}, {50, 2}, {100, 1}};
  const auto whole =
      polyline(draw_chart({.title = "t", .x_label = "", .y_label = "", .lines = {{.name = "a", .points = points}}}));
  const auto cut = polyline(draw_chart({.title = "t",
                                        .x_label = "",
                                        .y_label = "",
                                        .lines = {{.name = "a", .points = points}},
                                        .unscaled_start = 0.05}));
  EXPECT_LT(whole[2].second - whole[1].second, 5);
  EXPECT_GT(cut[2].second - cut[1].second, 150);
}

TEST(DrawChart, SurvivesOddInput) {
  EXPECT_EQ(draw_chart({.title = "t", .x_label = "", .y_label = "", .lines = {}}), "");
  EXPECT_EQ(draw_chart({.title = "t", .x_label = "", .y_label = "", .lines = {{.name = "a", .points = {}}}}), "");
  for (const auto& point : {std::pair{0.0, 0.0}, {5.0, 1e308}, {5.0, -3.0}})
    EXPECT_THAT(draw_chart({.title = "t", .x_label = "", .y_label = "", .lines = {{.name = "a", .points = {point}}}}),
                testing::Not(HasSubstr("nan")))
        << point.second;
  EXPECT_THAT(
      draw_chart(
          {.title = "<t>", .x_label = "", .y_label = "", .lines = {{.name = "\"><b>", .points = {{0, 0}, {1, 1}}}}}),
      testing::Not(HasSubstr("<b>")));
}

TEST(Html, EscapesAndFormats) {
  EXPECT_EQ(escape_html("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(0.0123456), "0.01235");
  EXPECT_EQ(format_number(1234), "1234");
  EXPECT_EQ(format_number(12345), "12.35k");
  EXPECT_EQ(format_number(-2.5e6), "-2.5M");
  EXPECT_EQ(format_seconds(45), "45 s");
  EXPECT_EQ(format_seconds(600), "10 min");
  EXPECT_EQ(format_seconds(3 * 3600), "3 h");
  EXPECT_EQ(format_seconds(3 * 86400), "3 d");
}

TEST(Base64, MatchesRfc4648) {
  EXPECT_EQ(encode_base64(""), "");
  EXPECT_EQ(encode_base64("f"), "Zg==");
  EXPECT_EQ(encode_base64("fo"), "Zm8=");
  EXPECT_EQ(encode_base64("foo"), "Zm9v");
  EXPECT_EQ(encode_base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encode_base64("\xff\xfe"), "//4=");
}

TEST(Bmp, HoldsThePixels) {
  const auto bmp = encode_bmp({{1, 2, 3}, {4, 5, 6}}, {{{10, 20, 30}}, {{40, 50, 60}}});
  const auto number = [&](size_t at) { return static_cast<uint8_t>(bmp[at]) | static_cast<uint8_t>(bmp[at + 1]) << 8; };
  EXPECT_EQ(bmp.substr(0, 2), "BM");
  EXPECT_EQ(number(2), static_cast<int>(bmp.size()));
  EXPECT_EQ(number(10), 54 + 1024);
  EXPECT_EQ(number(18), 3);                                                          // width
  EXPECT_EQ(number(22), 2);                                                          // height
  EXPECT_EQ(number(28), 8);                                                          // bits a pixel
  EXPECT_EQ(bmp.substr(54, 8), std::string("\x1e\x14\x0a\0\x3c\x32\x28\0", 8));      // blue, green, red, 0
  EXPECT_EQ(bmp.substr(54 + 1024), std::string("\x04\x05\x06\0\x01\x02\x03\0", 8));  // from below, rows of 4 bytes
}

}  // namespace
}  // namespace switchyard
