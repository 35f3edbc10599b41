#include "report/routing_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(RoutingPage, ShowsExpertsAndColoursTextWithoutTrustingIt) {
  RoutingPage page{.title = "runs/<mini>", .semantics = {"top-1 & more"}, .layers = {}};
  page.layers.push_back({.name = "encoder.1",
                         .summary = "12 tokens",
                         .experts = {{.load = 0.75, .mean_gate = 0.5, .typical = {"▁the", "<script>"}}, {}},
                         .texts = {{{"▁a", 0, 0.5}, {"&", -1, 0.0}, {"▁b", 1, 0.25}}}});
  const auto html = make_routing_page(page);
  EXPECT_THAT(html, HasSubstr("runs/&lt;mini&gt;"));
  EXPECT_THAT(html, HasSubstr("<code> the</code><code>&lt;script&gt;</code>"));
  EXPECT_THAT(html, HasSubstr("title='expert 0, gate 0.5'> a</span>"));
  EXPECT_THAT(html, HasSubstr("title='no expert took it'>&amp;</span>"));
  EXPECT_THAT(html, HasSubstr("75 %"));
  EXPECT_THAT(html, HasSubstr("top-1 &amp; more"));
  for (const char* elsewhere : {"http", "src=", "<script"}) EXPECT_THAT(html, Not(HasSubstr(elsewhere)));
}

}  // namespace
}  // namespace switchyard
