#include "worker/src/task_text.h"

#include "gtest/gtest.h"

namespace flux::internal {
namespace {

TEST(CleanText, KeepsValidUtf8AndReplacesTheRest) {
  struct Case {
    std::string in;
    size_t max;
    std::string out;
  };
  const Case cases[] = {
      {"", 10, ""},
      {"plain", 10, "plain"},
      {"naïve €😀", 100, "naïve €😀"},
      {"a\xff"
       "b",
       10, "a?b"},
      {"\xc0\xaf", 10, "??"},            // overlong
      {"\xed\xa0\x80", 10, "???"},       // a surrogate
      {"\xf4\x90\x80\x80", 10, "????"},  // past U+10FFFF
      {"cut off \xe2\x82", 20, "cut off ??"},
      {"0123456789", 10, "0123456789"},
      {"0123456789a", 10, "0123456..."},
      {"01234€€€€€", 10, "01234..."},  // never through a character
  };
  for (const Case& c : cases) EXPECT_EQ(CleanText(c.in, c.max), c.out) << c.in;
}

TEST(IsUtf8, IsWhatCleanTextLeavesAsItIs) {
  for (const char* text : {"", "plain", "naïve €😀"}) EXPECT_TRUE(IsUtf8(text)) << text;
  for (const char* text : {"\xff", "a\xe2\x82", "\xed\xa0\x80", "\xc0\xaf"}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
  }
}

TEST(FencingToken, NamesEveryPartOfADelivery) {
  v1::TaskToken token;
  token.set_incarnation(2);
  token.set_run_id(std::string("\x00\x0f\xff", 3));
  token.set_frame(4);
  token.set_step(5);
  token.set_generation(6);
  token.set_delivery(7);
  token.set_shard(8);
  EXPECT_EQ(FencingToken(token), "2.000fff.4.5.6.7");
}

}  // namespace
}  // namespace flux::internal
