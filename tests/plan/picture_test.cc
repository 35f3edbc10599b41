#include "plan/picture.h"

#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "plan/models.h"

namespace switchyard {
namespace {

struct Rectangle {
  double x, y, width, height;
  int64_t rank, row, row_end, column, column_end;
};

std::map<std::string, std::vector<Rectangle>> rectangles(const std::string& svg) {
  static const std::regex pattern(
      "<rect class=\"part\" x=\"([0-9.]+)\" y=\"([0-9.]+)\" width=\"([0-9.]+)\" height=\"([0-9.]+)\"[^>]*"
      "data-panel=\"(\\w+)\" data-rank=\"(\\d+)\" data-rows=\"(\\d+) (\\d+)\" data-columns=\"(\\d+) (\\d+)\"");
  std::map<std::string, std::vector<Rectangle>> found;
  for (auto match = std::sregex_iterator(svg.begin(), svg.end(), pattern); match != std::sregex_iterator(); ++match) {
    const auto number = [&](size_t group) { return std::stoll((*match)[group]); };
    found[(*match)[5]].push_back({std::stod((*match)[1]), std::stod((*match)[2]), std::stod((*match)[3]),
                                  std::stod((*match)[4]), number(6), number(7), number(8), number(9), number(10)});
  }
  return found;
}

// Every value of a [rows, columns] whole is on `copies` devices.
void expect_cover(const std::vector<Rectangle>& parts, int64_t rows, int64_t columns, int64_t copies) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      int64_t held = 0;
      for (const auto& part : parts)
        held += part.row <= row && row < part.row_end && part.column <= column && column < part.column_end ? 1 : 0;
      ASSERT_EQ(held, copies) << "row " << row << ", column " << column;
    }
  for (const auto& part : parts) {  // drawn to scale in a square of 40
    EXPECT_NEAR(part.width * static_cast<double>(columns), 40.0 * static_cast<double>(part.column_end - part.column),
                0.02 * static_cast<double>(columns));
    EXPECT_NEAR(part.height * static_cast<double>(rows), 40.0 * static_cast<double>(part.row_end - part.row),
                0.02 * static_cast<double>(rows));
  }
}

class PictureOf : public testing::TestWithParam<Layout> {};

TEST_P(PictureOf, IsDrawnWithEachPartOnceAReplica) {
  const auto layout = GetParam();
  const auto workload = small_workload(/*sparse=*/true);
  auto found = rectangles(draw_partitioning(workload, layout));
  // Without a dense network it is attention's q [32, 16], cut by heads along its rows.
  expect_cover(found["dense"], 32, 16, layout.data * layout.expert);
  const int64_t replicas = layout.expert > 4 ? layout.data * layout.expert / 4 : layout.data;
  expect_cover(found["experts"], 32, 4, replicas);
  expect_cover(found["batch"], 8, 1, layout.tensor);
}

INSTANTIATE_TEST_SUITE_P(Layouts, PictureOf,
                         testing::Values(Layout{}, Layout{4, 1, 1}, Layout{1, 4, 1}, Layout{1, 1, 4}, Layout{2, 2, 2},
                                         Layout{1, 8, 1}, Layout{8, 2, 4}),
                         [](const auto& named) {
                           return std::to_string(named.param.data) + "x" + std::to_string(named.param.expert) + "x" +
                                  std::to_string(named.param.tensor);
                         });

TEST(Picture, GivesEqualPartsEqualColours) {
  const auto svg = draw_partitioning(small_workload(true), {.data = 2, .expert = 2, .tensor = 2});
  static const std::regex pattern(
      "style=\"fill:([^\"]+)\" data-panel=\"(\\w+)\"[^>]*data-rows=\"([^\"]+)\" data-columns=\"([^\"]+)\"");
  std::map<std::string, std::string> color_of, part_of;
  for (auto match = std::sregex_iterator(svg.begin(), svg.end(), pattern); match != std::sregex_iterator(); ++match) {
    const std::string panel = (*match)[2], part = panel + (*match)[3].str() + "," + (*match)[4].str(),
                      color = panel + (*match)[1].str();
    EXPECT_TRUE(color_of.emplace(part, color).first->second == color) << part;
    EXPECT_TRUE(part_of.emplace(color, part).first->second == part) << color;
  }
  EXPECT_EQ(color_of.size(), 2u + 4u + 4u);
}

TEST(Picture, IsWellFormedAndDrawsTheFirstDevicesOfMany) {
  const auto svg = draw_partitioning(small_workload(true), {.data = 32, .expert = 4});
  EXPECT_EQ(rectangles(svg)["dense"].size(), 64u);
  EXPECT_NE(svg.find("The first 64 devices."), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.rfind("</svg>\n"), svg.size() - 7);
}

TEST(Picture, OfADenseModelHasNoExperts) {
  const auto svg = draw_partitioning(small_workload(false), {.data = 2});
  EXPECT_EQ(rectangles(svg).count("experts"), 0u);
  EXPECT_EQ(rectangles(svg)["dense"].size(), 2u);
}

}  // namespace
}  // namespace switchyard
