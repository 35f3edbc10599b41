#include "base/json.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string repeated(std::string_view part, size_t count) {
  std::string text;
  while (count-- > 0) text += part;
  return text;
}

TEST(Json, KeepsOrderAndNamesTheSource) {
  EXPECT_EQ(parse_json(R"({"b": [1], "a": 2})", "fine.json").dump(), R"({"b":[1],"a":2})");
  EXPECT_EQ(parse_large_json(R"({"b": [1], "a": 2})", "fine.json").dump(), R"({"a":2,"b":[1]})");
  EXPECT_THAT([] { parse_json("{\"a\": ", "cut.json"); }, ThrowsMessage<Error>(HasSubstr("cut.json: not JSON")));
}

TEST(Json, DepthKeysAndValuesAreBounded) {
  for (const char* open : {"[", "{\"a\":"}) {
    const auto deep = repeated(open, 1 << 20);
    EXPECT_THAT([&] { parse_json(deep, "deep.json"); },
                ThrowsMessage<Error>(HasSubstr("deep.json: JSON nested deeper")));
    EXPECT_THAT([&] { parse_large_json(deep, "deep.json"); }, ThrowsMessage<Error>(HasSubstr("nested deeper")));
  }
  std::string wide = "{";
  for (int key = 0; key < 200'000; ++key) wide += "\"" + std::to_string(key) + "\": 0, ";
  wide += "\"last\": 0}";
  EXPECT_THAT([&] { parse_json(wide, "wide.json"); },
              ThrowsMessage<Error>(HasSubstr("wide.json: JSON with more than 20")));
  EXPECT_EQ(parse_large_json(wide, "wide.json").size(), 200'001u);
  // Three bytes of text become an object of fifty: of many, a file of 64 MiB would make a gigabyte.
  const auto many = "[" + repeated("[],", 5'000'000) + "0]";
  EXPECT_THAT([&] { parse_json(many, "many.json"); },
              ThrowsMessage<Error>(HasSubstr("many.json: JSON with more than")));
  EXPECT_THAT([&] { parse_large_json(many, "many.json"); }, ThrowsMessage<Error>(HasSubstr("JSON with more than")));
}

TEST(Json, AMessageDoesNotQuoteTheWholeFile) {
  try {
    parse_json("\"" + std::string(1'000'000, 'x'), "open.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_LT(std::string_view(error.what()).size(), 1000u);
  }
}

}  // namespace
}  // namespace switchyard
