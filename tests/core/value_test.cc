// Values, what the core reads of JSON, and retry arithmetic.
#include "engine/core/value.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/core/json_value.h"
#include "engine/core/payload_limit.h"
#include "engine/core/retry.h"
#include "proto/bridge.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

Value JsonValue(std::string_view text) { return Value::FromData(text, v1::ENCODING_JSON); }

TEST(JsonText, AcceptsExactlyJson) {
  const char* const kGood[] = {"0",     "-0",     "12.5e-3", "1E+9",
                               "true",  " null ", "\"\"",    "[]",
                               "[1]",   "{}",     "\t[ ]",   "{\"a\":{\"b\":[1,\"x\\u00e9\"]}}",
                               "[[[]]]"};
  for (const char* text : kGood) EXPECT_TRUE(CheckJson(text).ok()) << text;
  const char* const kBad[] = {"",         "01",        "1.",      "+1",          ".5",      "tru",
                              "nulll",    "[1,]",      "[",       "]",           "{\"a\"}", "{a:1}",
                              "{,}",      "\"a",       "\"\\x\"", "\"\\u12g4\"", "[1}",     "1 2",
                              "\"\x01\"", "{\"a\":1,}"};
  for (const char* text : kBad) {
    EXPECT_EQ(CheckJson(text).code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(JsonText, NestsUpToTheLimitWithoutRecursion) {
  EXPECT_TRUE(CheckJson(std::string(kJsonDepthMax, '[') + std::string(kJsonDepthMax, ']')).ok());
  EXPECT_FALSE(
      CheckJson(std::string(kJsonDepthMax + 1, '[') + std::string(kJsonDepthMax + 1, ']')).ok());
  EXPECT_FALSE(CheckJson(std::string(1'000'000, '[')).ok());
}

TEST(JsonPointer, FindsTheSliceAsItIsWritten) {
  struct Case {
    const char* json;
    const char* pointer;
    const char* found;  // null: nowhere
  };
  const Case kCases[] = {
      {R"({"a":1.10})", "", R"({"a":1.10})"},
      {R"({"a":1.10})", "/a", "1.10"},
      {R"({"a":{"b":[10, 20 ,{"c":"x"}]}})", "/a/b/2/c", "\"x\""},
      {R"({"a":{"b":[10, 20 ]}})", "/a/b/1", "20"},
      {R"({"a/b":1,"m~n":2})", "/a~1b", "1"},
      {R"({"a/b":1,"m~n":2})", "/m~0n", "2"},
      {R"({"":3})", "/", "3"},
      {R"({"\u0061":4})", "/a", "4"},
      {R"({"a":1,"a":2})", "/a", "2"},
      {R"([123456789012345678901234567890])", "/0", "123456789012345678901234567890"},
      {R"({"a":1})", "/b", nullptr},
      {R"([1,2])", "/2", nullptr},
      {R"([1,2])", "/-", nullptr},
      {R"([1,2])", "/01", nullptr},
      {R"([])", "/0", nullptr},
      {R"({})", "/a", nullptr},
      {R"(5)", "/a", nullptr},
      {R"({"a":1)", "/a", nullptr},
      {R"({"a":1})", "a", nullptr},
  };
  for (const Case& c : kCases) {
    const auto found = FindJsonPointer(c.json, c.pointer);
    ASSERT_EQ(found.ok(), c.found != nullptr) << c.json << " " << c.pointer << found.status();
    if (found.ok()) {
      EXPECT_EQ(*found, c.found);
    }
  }
}

TEST(JsonText, ReadsTruthNumbersAndEquality) {
  EXPECT_TRUE(*IsJsonTrue(JsonValue(" true\n")));
  EXPECT_FALSE(*IsJsonTrue(JsonValue("1")));
  EXPECT_FALSE(*IsJsonTrue(Value()));
  EXPECT_FALSE(IsJsonTrue(JsonValue("{")).ok());
  EXPECT_FALSE(IsJsonTrue(Value::FromData("true", v1::ENCODING_BYTES)).ok());
  EXPECT_EQ(*WholeNumber(JsonValue(" 42 ")), 42);
  for (const char* bad : {"4.2", "-1", "\"4\"", "1e3", "99999999999999999999", ""}) {
    EXPECT_FALSE(WholeNumber(JsonValue(bad)).ok()) << bad;
  }
  EXPECT_TRUE(*EqualsJson(JsonValue(R"({"b":2,"a":1})"), R"({"a":1,"b":2})"));
  EXPECT_TRUE(*EqualsJson(JsonValue("1"), "1.0"));
  EXPECT_TRUE(*EqualsJson(Value(), "null"));
  EXPECT_FALSE(*EqualsJson(JsonValue("\"a\""), "\"b\""));
  EXPECT_FALSE(EqualsJson(JsonValue("nope"), "1").ok());
}

TEST(JsonText, QuotesEverythingReadably) {
  EXPECT_EQ(QuoteJson("a\"b\\c\n\x01é"), "\"a\\\"b\\\\c\\u000a\\u0001é\"");
  EXPECT_EQ(QuoteJson("x\xff\xc3"), "\"x\xef\xbf\xbd\xef\xbf\xbd\"");
  v1::Failure failure;
  failure.set_type("t");
  failure.set_message("m");
  failure.set_source("w");
  const std::string json = FailureJson(failure);
  EXPECT_TRUE(CheckJson(json).ok());
  EXPECT_EQ(*FindJsonPointer(json, "/message"), "\"m\"");
}

TEST(JsonText, ListsSomeNames) {
  EXPECT_EQ(ListSome({}), "");
  EXPECT_EQ(ListSome({"a"}), "a");
  EXPECT_EQ(ListSome({"a", "b"}, 2), "a, b");
  EXPECT_EQ(ListSome({"a", "b", "c", "d"}, 2), "a, b and 2 more");
  EXPECT_EQ(ListSome(std::vector<std::string>(20, "x")), "x, x, x, x, x, x, x, x and 12 more");
}

TEST(JsonText, ExcerptsEndWithACharacter) {
  EXPECT_EQ(Excerpt("abc", 3), "abc");
  EXPECT_EQ(Excerpt("abcd", 3), "abc…");
  EXPECT_EQ(Excerpt("aé", 2), "a…");
  EXPECT_EQ(Excerpt("é", 2), "é");
  EXPECT_EQ(Excerpt("\xff", 5), "\xef\xbf\xbd");
}

TEST(Value, KeepsPayloadsAsTheyWere) {
  v1::Payload rich = Json("{}");
  rich.set_content_type("a.B");
  (*rich.mutable_metadata())["k"] = "v";
  for (const v1::Payload& payload : {Json("1"), Json(""), Json(std::string(kCompactBytesMax, 'x')),
                                     Json(std::string(kCompactBytesMax + 1, 'x')), rich}) {
    EXPECT_EQ(Value::FromPayload(payload).ToPayload().SerializeAsString(),
              payload.SerializeAsString());
  }
  EXPECT_EQ(Value().ToPayload().encoding(), v1::ENCODING_NONE);
  EXPECT_TRUE(Value::FromPayload(Value().ToPayload()).none());
}

TEST(Value, KnowsTheBytesOfThePayloadItMakesBeforeItIsMade) {
  v1::Payload rich = Json("{}");
  rich.set_content_type("a.B");
  (*rich.mutable_metadata())["k"] = std::string(300, 'v');
  const Value array = *Value::Split(JsonValue("[1,\"two\",[]]"));
  std::vector<Value> values = {Value(),
                               JsonValue(""),
                               JsonValue("1"),
                               JsonValue(std::string(kCompactBytesMax + 1, 'x')),
                               Value::FromPayload(rich),
                               array,
                               array.Item(1)};
  values.push_back(Value::FromData("x", v1::ENCODING_UNSPECIFIED));
  values.push_back(*Value::List({}));
  values.push_back(*Value::List(values));
  values.push_back(*Value::List(std::vector<Value>(200, values.back())));
  const Value parts = *Value::Split(Value::FromPayload(values[9].ToPayload()));
  values.push_back(*Value::List({parts.Item(1), parts.Item(2), parts.Item(4), parts.Item(8)}));
  for (const Value& value : values) {
    const v1::Payload made = value.ToPayload();
    EXPECT_EQ(value.data_bytes(), made.data().size());
    EXPECT_EQ(value.limit_bytes(), PayloadBytes(made));
  }
  EXPECT_EQ(PayloadBytes(rich), 2u + 3u + 1u + 300u);
}

TEST(Value, SplitsListsAndArraysIntoSharedItems) {
  v1::Payload typed;
  typed.set_encoding(v1::ENCODING_PROTOBUF);
  typed.set_content_type("m.T");
  typed.set_data("bytes");
  const Value list = Value::FromPayload(ListPayload({Json("1"), typed, ListPayload({Json("2")})}));
  const auto split = Value::Split(list);
  ASSERT_TRUE(split.ok()) << split.status();
  ASSERT_EQ(split->items(), 3u);
  EXPECT_EQ(split->Item(0).ToPayload().data(), "1");
  EXPECT_EQ(split->Item(1).ToPayload().content_type(), "m.T");
  const auto nested = Value::Split(split->Item(2));
  ASSERT_TRUE(nested.ok());
  EXPECT_EQ(nested->Item(0).ToPayload().data(), "2");

  const auto array = Value::Split(JsonValue(" [1, [2,3] ,{\"a\":[]}] "));
  ASSERT_TRUE(array.ok());
  ASSERT_EQ(array->items(), 3u);
  EXPECT_EQ(array->Item(1).ToPayload().data(), "[2,3]");
  EXPECT_EQ(Value::Split(array->Item(1))->Item(1).ToPayload().data(), "3");
  EXPECT_EQ(Value::Split(Value())->items(), 0u);
}

// Found by seed 40116 of the simulation: a switch over such an item could not read it.
TEST(Value, AnItemOfNothingIsNothing) {
  v1::Payload none;
  none.set_encoding(v1::ENCODING_NONE);
  const auto split = Value::Split(Value::FromPayload(ListPayload({none, Json("1")})));
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_TRUE(split->Item(0).none());
  EXPECT_FALSE(split->Item(1).none());
}

TEST(Value, RefusesToSplitWhatIsNoList) {
  v1::Payload torn = ListPayload({Json("12345")});
  torn.mutable_data()->pop_back();
  v1::Payload bytes;
  bytes.set_encoding(v1::ENCODING_BYTES);
  bytes.set_data("x");
  for (const v1::Payload& payload :
       {Json("{}"), Json("[1"), Json("[1] 2"), Json("3"), torn, bytes}) {
    EXPECT_EQ(Value::Split(Value::FromPayload(payload)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << payload.data();
  }
}

TEST(Value, ListsNestUpToTheLimit) {
  Value value = *Value::List({JsonValue("1")});
  for (uint32_t depth = 1; depth < kListDepthMax; ++depth) {
    auto deeper = Value::List({value});
    ASSERT_TRUE(deeper.ok());
    value = *std::move(deeper);
  }
  EXPECT_EQ(Value::List({value}).status().code(), absl::StatusCode::kResourceExhausted);
}

// Each level is an item of the split around it; the chain is cut, so that freeing it needs no deep
// stack.
TEST(Value, SplitsOfItemsGoAsDeepAsTheirPayload) {
  constexpr size_t kDepth = 900;
  Value value = JsonValue(std::string(kDepth, '[') + "7" + std::string(kDepth, ']'));
  for (size_t i = 0; i < kDepth; ++i) {
    const auto split = Value::Split(value);
    ASSERT_TRUE(split.ok()) << i << split.status();
    value = split->Item(0);
  }
  EXPECT_EQ(value.ToPayload().data(), "7");
}

v1::RetryPolicy Policy(int64_t initial, uint32_t factor, int64_t cap, uint32_t jitter) {
  v1::RetryPolicy policy;
  policy.set_initial_backoff_ms(initial);
  policy.set_factor_permille(factor);
  policy.set_max_backoff_ms(cap);
  policy.set_jitter_permille(jitter);
  return policy;
}

TEST(RetryPolicy, GrowsByItsFactorUpToItsCap) {
  struct Case {
    int64_t initial;
    uint32_t factor;
    int64_t cap;
    uint32_t attempt;
    int64_t gap;
  };
  const Case kCases[] = {
      {1000, 2000, 60000, 1, 1000},
      {1000, 2000, 60000, 2, 2000},
      {1000, 2000, 60000, 6, 32000},
      {1000, 2000, 60000, 7, 60000},
      {1000, 2000, 60000, 10000, 60000},
      {1000, 1000, 60000, 10000, 1000},
      {100, 1500, 1000, 3, 225},
      {5000, 2000, 3000, 1, 3000},
      {1, 1001, 10, 4, 4},
      {3'000'000'000'000, 1'000'000, 3'100'000'000'000, 9999, 3'100'000'000'000},
  };
  for (const Case& c : kCases) {
    EXPECT_EQ(BackoffMs(Policy(c.initial, c.factor, c.cap, 0), c.attempt), c.gap)
        << c.initial << " " << c.factor << " " << c.cap << " attempt " << c.attempt;
  }
}

TEST(RetryPolicy, JitterStaysWithinItsShareAndReachesBothEnds) {
  const v1::RetryPolicy policy = Policy(1000, 2000, 60000, 200);
  EXPECT_EQ(JitteredBackoffMs(policy, 1, 0), 800);
  EXPECT_EQ(JitteredBackoffMs(policy, 1, 200), 1000);
  int64_t low = INT64_MAX, high = 0;
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    const int64_t gap = JitteredBackoffMs(policy, 1, JitterBits(seed, {3, 4}, 1));
    low = std::min(low, gap);
    high = std::max(high, gap);
  }
  EXPECT_GE(low, 800);
  EXPECT_LE(low, 805);
  EXPECT_GE(high, 995);
  EXPECT_LE(high, 1000);
  EXPECT_EQ(JitteredBackoffMs(Policy(1000, 2000, 60000, 0), 2, 12345), 2000);
}

TEST(RetryPolicy, JitterDependsOnEveryPartOfItsAttempt) {
  const uint64_t bits = JitterBits(1, {2, 3}, 4);
  EXPECT_EQ(bits, JitterBits(1, {2, 3}, 4));
  EXPECT_NE(bits, JitterBits(2, {2, 3}, 4));
  EXPECT_NE(bits, JitterBits(1, {3, 3}, 4));
  EXPECT_NE(bits, JitterBits(1, {2, 4}, 4));
  EXPECT_NE(bits, JitterBits(1, {2, 3}, 5));
}

TEST(RetryPolicy, KnowsWhatIsNotRetriable) {
  v1::TaskStep task;
  task.add_non_retriable("bad.page");
  v1::Failure failure;
  failure.set_type("io");
  EXPECT_TRUE(IsRetriable(task, failure));
  failure.set_non_retriable(true);
  EXPECT_FALSE(IsRetriable(task, failure));
  failure.set_non_retriable(false);
  failure.set_type("bad.page");
  EXPECT_FALSE(IsRetriable(task, failure));
}

}  // namespace
}  // namespace flux::engine::testing
