#include "train/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Settings, ChangesAreNamed) {
  const Json before = {{"train", {{"seed", 1}, {"batch_size", 8}}}},
             now = {{"train", {{"seed", 2}, {"batch_size", 8}}}};
  EXPECT_THAT(changed_settings(before, before), IsEmpty());
  EXPECT_THAT(changed_settings(before, now), ElementsAre("train.seed: 1 -> 2"));
}

// A checkpoint of a program that did not have a key yet goes on, unless the key now says something else.
TEST(Settings, KeysThatCameLaterCountByTheirDefault) {
  const Json before = {{"train", {{"seed", 1}}}};
  EXPECT_THAT(changed_settings(before, {{"train", {{"seed", 1}, {"frozen", Json::array()}, {"z_loss", 1e-4}}}}),
              IsEmpty());
  EXPECT_THAT(changed_settings(before, {{"train", {{"seed", 1}, {"frozen", Json::array({"experts"})}}}}),
              ElementsAre("train.frozen: none -> [\"experts\"]"));
}

}  // namespace
}  // namespace switchyard
