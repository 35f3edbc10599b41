#include "report/study_section.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "report/page.h"
#include "report/run_folder.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kStudy = R"({
 "title": "Fine-tuning", "about": "two <seeds>",
 "tables": [{"title": "Tasks", "columns": [{"name": "SST-2", "digits": 1, "best": "highest"}, {"name": "loss", "best": "lowest"}, {"name": "kept"}],
             "rows": [{"name": "sparse", "cells": [[80, 82], [4.5], "87 %"]}, {"name": "dense", "cells": [[70, 74], [4.25], null]}]}],
 "charts": [{"title": "SST-2", "x_label": "step", "y_label": "accuracy",
             "lines": [{"name": "sparse", "runs": [[[50, 60], [100, 80]], [[50, 64], [100, 82]]]}]}]})";

TEST(StudySection, ShowsMeansWithTheirStandardErrorAndTheBest) {
  const auto html = draw_study(parse_json(kStudy, "study.json"), "study.json");
  for (const char* text :
       {"<h2>Fine-tuning</h2>", "two &lt;seeds&gt;", "<td class=best>81.0 ± 1.0</td>", "<td>72.0 ± 2.0</td>",
        "<td>4.50</td>", "<td class=best>4.25</td>", "<td>87 %</td>", "<td></td>", "<svg"})
    EXPECT_THAT(html, HasSubstr(text));
  const auto tables = study_tables(parse_json(kStudy, "study.json"), "study.json").at("tables");
  EXPECT_EQ(tables[0].at("columns"), Json::parse(R"(["SST-2", "loss", "kept"])"));
  EXPECT_EQ(tables[0].at("rows")[0], Json::parse(R"(["sparse", "81.0 ± 1.0", "4.50", "87 %"])"));
}

TEST(StudySection, AFolderOfAStudyAloneIsAPage) {
  const RunFolder scratch;
  scratch.put("study.json", kStudy);
  const auto page = make_page(read_runs({scratch.path()}));
  EXPECT_THAT(page, HasSubstr("<title>Study - Switchyard report</title>"));
  EXPECT_THAT(page, HasSubstr("81.0 ± 1.0"));
  EXPECT_THAT(page, Not(HasSubstr("<h2>Configuration</h2>")));
}

TEST(StudySection, SaysWhatIsMissing) {
  const auto refused = [](std::string text, const std::string& part, const std::string& other) {
    text.replace(text.find(part), part.size(), other);
    try {
      draw_study(parse_json(text, "s.json"), "s.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refused(kStudy, R"("title": "Tasks", )", ""), HasSubstr("s.json: expected a text \"title\""));
  EXPECT_THAT(refused(kStudy, R"("87 %")", R"(null, null)"),
              HasSubstr("row \"sparse\" has 4 cells; expected one for each of 3"));
  EXPECT_THAT(refused(kStudy, "[4.5]", "[]"), HasSubstr("expected a text, null or a list of numbers"));
  EXPECT_THAT(refused(kStudy, "[4.5]", "[\"4.5\"]"), HasSubstr("expected a number of a study, got \"4.5\""));
  EXPECT_THAT(refused(kStudy, "highest", "greatest"), HasSubstr("highest or lowest, got \"greatest\""));
  EXPECT_THAT(refused(kStudy, "[50, 60]", "[50]"), HasSubstr("points [x, y]"));
}

}  // namespace
}  // namespace switchyard
