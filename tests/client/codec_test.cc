#include "flux/codec.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "flux/v1/definition.pb.h"
#include "flux/v1/payload.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace app {

enum class Colour : uint8_t { kRed = 1, kBlue = 2 };

struct Point {
  int32_t x = -1;
  std::optional<double> weight;
  bool operator==(const Point&) const = default;
};
FLUX_STRUCT(Point, x, weight)

struct Tree {
  std::string name;
  std::vector<Tree> children;
  std::map<std::string, Point> marks;
  Colour colour = Colour::kRed;
  flux::Bytes blob;
  bool operator==(const Tree&) const = default;
};
FLUX_STRUCT(Tree, name, children, marks, colour, blob)

// Has a form of its own.
struct Rational {
  int64_t up = 0;
  int64_t down = 1;
  bool operator==(const Rational&) const = default;
};

}  // namespace app

template <>
struct flux::Codec<app::Rational> {
  static constexpr std::string_view kName = "rational";
  static absl::StatusOr<flux::Payload> Encode(const app::Rational& r) {
    flux::Payload payload;
    payload.encoding = flux::Encoding::kCustom;
    payload.content_type = "rational";
    payload.data = std::to_string(r.up) + "/" + std::to_string(r.down);
    payload.metadata["key"] = "7";
    return payload;
  }
  static absl::StatusOr<app::Rational> Decode(const flux::Payload& p) {
    const size_t slash = p.data.find('/');
    if (slash == std::string::npos) return absl::InvalidArgumentError("no slash");
    return app::Rational{std::stoll(p.data), std::stoll(p.data.substr(slash + 1))};
  }
};

namespace flux {
namespace {

using ::testing::HasSubstr;

Payload Json(std::string text) { return internal::JsonPayload(std::move(text)); }

template <typename T>
void ExpectForm(const T& value, const std::string& json) {
  absl::StatusOr<Payload> payload = Encode(value);
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(payload->encoding, Encoding::kJson);
  EXPECT_EQ(payload->data, json);
  absl::StatusOr<T> back = Decode<T>(*payload);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(*back == value) << json;
}

template <typename T>
void ExpectReads(const std::string& json, const T& value) {
  absl::StatusOr<T> read = Decode<T>(Json(json));
  ASSERT_TRUE(read.ok()) << json << ": " << read.status();
  EXPECT_TRUE(*read == value) << json;
}

template <typename T>
void ExpectRefuses(const std::string& json, const std::string& why) {
  absl::StatusOr<T> read = Decode<T>(Json(json));
  ASSERT_FALSE(read.ok()) << json;
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(read.status().message()), HasSubstr(why)) << json;
}

TEST(Codec, WritesJsonThatReadsBack) {
  ExpectForm(true, "true");
  ExpectForm(int32_t{-7}, "-7");
  ExpectForm(std::numeric_limits<int64_t>::min(), "-9223372036854775808");
  ExpectForm(std::numeric_limits<uint64_t>::max(), "18446744073709551615");
  ExpectForm(0.1, "0.1");
  ExpectForm(0.1f, "0.1");
  ExpectForm(1e300, "1e+300");
  ExpectForm(std::string("a\"\\\n\t\x01 é €"), R"("a\"\\\n\t\u0001 é €")");
  ExpectForm(std::string("\xF0\x9F\x98\x80"), "\"\xF0\x9F\x98\x80\"");
  ExpectForm(std::string(), "\"\"");
  ExpectForm(app::Colour::kBlue, "2");
  ExpectForm(std::array<bool, 2>{true, false}, "[true,false]");
  ExpectForm(std::map<std::string, int>{{"b", 2}, {"a", 1}}, R"({"a":1,"b":2})");
  ExpectForm(std::unordered_map<std::string, int>{{"b", 2}, {"a", 1}}, R"({"a":1,"b":2})");
  ExpectForm(app::Point{3, 0.5}, R"({"x":3,"weight":0.5})");
  ExpectForm(app::Point{3, std::nullopt}, R"({"x":3,"weight":null})");
  ExpectForm(
      app::Tree{"r", {app::Tree{"c", {}, {}, app::Colour::kBlue, {}}}, {{"m", {}}}, {}, {"\xFF"}},
      R"({"name":"r","children":[{"name":"c","children":[],"marks":{},"colour":2,"blob":""}],)"
      R"("marks":{"m":{"x":-1,"weight":null}},"colour":0,"blob":"/w=="})");
  ExpectForm(nlohmann::json::parse(R"({"any":[1,null]})"), R"({"any":[1,null]})");
  ExpectForm(Unit{}, "null");
}

TEST(Codec, AcceptsEveryJsonSpellingOfANumber) {
  ExpectReads<int32_t>("1e3", 1000);
  ExpectReads<int32_t>("2.0", 2);
  ExpectReads<int32_t>(" 5 ", 5);
  ExpectReads<int64_t>("-0", 0);
  ExpectReads<uint8_t>("255", 255);
  ExpectReads<double>("7", 7.0);
  ExpectReads<double>("9007199254740992", 9007199254740992.0);
  ExpectReads<float>("0.1", 0.1f);
  ExpectReads<int64_t>("9223372036854775807", std::numeric_limits<int64_t>::max());
}

TEST(Codec, RefusesWhatDoesNotFit) {
  ExpectRefuses<int8_t>("128", "expected an integer from -128 to 127, got 128");
  ExpectRefuses<int8_t>("-129", "-129");
  ExpectRefuses<uint8_t>("256", "from 0 to 255");
  ExpectRefuses<uint32_t>("-1", "from 0 to 4294967295, got -1");
  ExpectRefuses<int32_t>("2147483648", "2147483648");
  ExpectRefuses<int64_t>("9223372036854775808", "9223372036854775808");
  ExpectRefuses<uint64_t>("1e20", "1e+20");
  ExpectRefuses<int32_t>("1.5", "got 1.5");
  ExpectRefuses<int32_t>("true", "got true");
  ExpectRefuses<int32_t>("\"7\"", "got \"7\"");
  ExpectRefuses<bool>("1", "expected true or false, got 1");
  ExpectRefuses<double>("9007199254740993", "hold exactly");
  ExpectRefuses<double>("18446744073709551615", "hold exactly");
  ExpectRefuses<float>("1e300", "range of float");
  ExpectRefuses<std::string>("7", "expected a text, got 7");
  ExpectRefuses<app::Colour>("256", "from 0 to 255");
  ExpectRefuses<int32_t>("007", "not JSON");
  ExpectRefuses<int32_t>("", "not JSON");
  ExpectRefuses<int32_t>("5 5", "not JSON");
  ExpectRefuses<std::string>("\"\xFF\"", "not JSON");
  ExpectRefuses<std::string>("\"", "not JSON");
  ExpectRefuses<app::Point>("[1]", "expected an object, got [1]");
  ExpectRefuses<app::Point>(R"({"x":null})", "/x: expected an integer");
  ExpectRefuses<app::Tree>(R"({"children":[{},{"marks":{"m":{"x":1.5}}}]})",
                           "/children/1/marks/m/x: expected an integer");
  ExpectRefuses<app::Tree>(R"({"blob":"*"})", "/blob: expected bytes as base64 text");
  ExpectRefuses<std::array<int32_t, 2>>("[1]", "expected 2 items, got 1");
}

TEST(Codec, RefusesTextThatIsNotUtf8WithItsPlace) {
  struct Case {
    std::string text;
    size_t at;
  };
  const std::vector<Case> cases = {
      {"\xFF", 0},
      {"abc\x80", 3},
      {"\xC0\xAF", 0},          // overlong
      {"\xE0\x80\xAF", 0},      // overlong
      {"\xED\xA0\x80", 0},      // a surrogate
      {"\xF4\x90\x80\x80", 0},  // beyond U+10FFFF
      {"ok \xE2\x82", 3},       // cut short
  };
  for (const Case& c : cases) {
    absl::StatusOr<Payload> payload = Encode(c.text);
    ASSERT_FALSE(payload.ok());
    EXPECT_EQ(payload.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(payload.status().message()),
                HasSubstr("not UTF-8 at byte " + std::to_string(c.at)));
  }
  app::Tree tree;
  tree.children.resize(2);
  tree.children[1].name = "\xFF";
  EXPECT_THAT(std::string(Encode(tree).status().message()), HasSubstr("/children/1/name: text"));
  EXPECT_FALSE(Encode(nlohmann::json("\xFF")).ok());
}

TEST(Codec, RefusesNumbersThatJsonDoesNotHave) {
  EXPECT_FALSE(Encode(std::nan("")).ok());
  EXPECT_FALSE(Encode(std::numeric_limits<float>::infinity()).ok());
  EXPECT_THAT(std::string(Encode(app::Point{1, std::nan("")}).status().message()),
              HasSubstr("/weight: JSON has no NaN"));
}

TEST(Codec, KeepsDefaultsOfMissingMembersAndIgnoresUnknownOnes) {
  ExpectReads<app::Point>("{}", app::Point{-1, std::nullopt});
  ExpectReads<app::Point>(R"({"y":9,"weight":2})", app::Point{-1, 2.0});
}

TEST(Codec, BoundsTheDepthOfJson) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(Decode<nlohmann::json>(Json(nested(kJsonDepthMax))).ok());
  ExpectRefuses<nlohmann::json>(nested(kJsonDepthMax + 1), "nested deeper than 128");
  ExpectRefuses<nlohmann::json>(std::string(1'000'000, '['), "nested deeper than 128");
  // Brackets in text do not nest.
  ExpectReads<std::string>("\"" + std::string(500, '[') + "\\\"[\"", std::string(500, '[') + "\"[");
  nlohmann::json deep = 1;
  for (size_t i = 0; i <= kJsonDepthMax; ++i) deep = nlohmann::json::array({deep});
  EXPECT_FALSE(Encode(deep).ok());
}

TEST(Codec, FramesListsAsTheSerialisedPayloadList) {
  const std::vector<app::Rational> rationals = {{1, 2}, {-3, 4}};
  absl::StatusOr<Payload> payload = Encode(rationals);
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(payload->encoding, Encoding::kList);
  v1::PayloadList list;
  ASSERT_TRUE(list.ParseFromString(payload->data));
  ASSERT_EQ(list.items_size(), 2);
  EXPECT_EQ(list.items(1).data(), "-3/4");
  EXPECT_EQ(list.items(1).encoding(), v1::ENCODING_CUSTOM);
  EXPECT_EQ(list.items(1).content_type(), "rational");
  EXPECT_EQ(list.items(1).metadata().at("key"), "7");
  EXPECT_EQ(list.SerializeAsString(), payload->data);
  EXPECT_EQ(*Decode<std::vector<app::Rational>>(*payload), rationals);
}

TEST(Codec, ReadsListsOfNewerFormats) {
  v1::PayloadList list;
  list.add_items()->set_data("7");
  list.mutable_items(0)->set_encoding(v1::ENCODING_JSON);
  list.mutable_items(0)
      ->GetReflection()
      ->MutableUnknownFields(list.mutable_items(0))
      ->AddVarint(99, 1);
  list.mutable_items(0)
      ->GetReflection()
      ->MutableUnknownFields(list.mutable_items(0))
      ->AddFixed64(98, 1);
  list.GetReflection()->MutableUnknownFields(&list)->AddLengthDelimited(97, "x");
  list.GetReflection()->MutableUnknownFields(&list)->AddFixed32(96, 1);
  Payload payload;
  payload.encoding = Encoding::kList;
  payload.data = list.SerializeAsString();
  absl::StatusOr<std::vector<int>> read = Decode<std::vector<int>>(payload);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, std::vector<int>{7});
}

TEST(Codec, RefusesEveryTruncationOfAListAndNeverReadsBeyond) {
  Payload whole = *Encode(std::vector<std::string>{"first", "second"});
  int accepted = 0;
  for (size_t size = 0; size < whole.data.size(); ++size) {
    Payload cut = whole;
    cut.data = std::string(whole.data.data(), size);
    if (Decode<std::vector<std::string>>(cut).ok()) ++accepted;
  }
  EXPECT_EQ(accepted, 2);  // nothing, and the first item alone
  Payload huge = whole;
  huge.data = std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F", 10);
  EXPECT_FALSE(Decode<std::vector<std::string>>(huge).ok());
  huge.data = std::string(12, '\xFF');
  EXPECT_FALSE(Decode<std::vector<std::string>>(huge).ok());
}

TEST(Codec, ListsNestAndReadFromJsonToo) {
  const std::vector<std::vector<int>> nested = {{1, 2}, {}, {3}};
  EXPECT_EQ(*Decode<std::vector<std::vector<int>>>(*Encode(nested)), nested);
  EXPECT_EQ(*Decode<std::vector<std::vector<int>>>(Json("[[1,2],[],[3]]")), nested);
  EXPECT_EQ(*Decode<std::vector<bool>>(*Encode(std::vector<bool>{true, false})),
            (std::vector<bool>{true, false}));
  EXPECT_EQ(*Decode<std::vector<app::Point>>(Json(R"([{"x":1},{"x":2}])")),
            (std::vector<app::Point>{{1, {}}, {2, {}}}));
  const auto bad = Decode<std::vector<app::Point>>(Json(R"([{"x":1},{"x":"2"}])"));
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("item 1: /x: expected an integer"));
  const auto not_list = Decode<std::vector<int>>(Json("7"));
  EXPECT_THAT(std::string(not_list.status().message()), HasSubstr("expected an array, got 7"));
  // A list read by something that wants JSON as a whole.
  EXPECT_EQ((*Decode<std::array<int, 2>>(*Encode(std::vector<int>{4, 5}))), (std::array{4, 5}));
}

TEST(Codec, TuplesAndPairsAreListsOfTheirParts) {
  using Mixed = std::tuple<int, std::string, app::Rational>;
  const Mixed mixed = {7, "x", {1, 2}};
  Payload payload = *Encode(mixed);
  EXPECT_EQ(payload.encoding, Encoding::kList);
  EXPECT_EQ(*Decode<Mixed>(payload), mixed);
  EXPECT_EQ((*Decode<std::pair<int, bool>>(Json("[1,true]"))), (std::pair{1, true}));
  EXPECT_THAT(std::string(Decode<Mixed>(Json("[1]")).status().message()),
              HasSubstr("expected 3 items, got 1"));
  EXPECT_THAT(std::string((Decode<std::pair<int, bool>>(Json("[1,2]"))).status().message()),
              HasSubstr("item 1: expected true or false"));
}

TEST(Codec, OptionalIsNoValueOrTheValue) {
  EXPECT_EQ(Encode(std::optional<int>())->encoding, Encoding::kNone);
  EXPECT_EQ(Encode(std::optional<int>(7))->data, "7");
  EXPECT_EQ(*Decode<std::optional<int>>(*Encode(std::optional<int>())), std::nullopt);
  EXPECT_EQ(*Decode<std::optional<int>>(Json("null")), std::nullopt);
  EXPECT_EQ(*Decode<std::optional<int>>(Json("7")), 7);
  EXPECT_FALSE(Decode<std::optional<int>>(Json("\"7\"")).ok());
  Payload none;
  none.encoding = Encoding::kNone;
  EXPECT_THAT(std::string(Decode<int>(none).status().message()),
              HasSubstr("expected int32, got no value"));
  const std::vector<std::optional<int>> list = {1, std::nullopt};
  EXPECT_EQ(*Decode<std::vector<std::optional<int>>>(*Encode(list)), list);
  EXPECT_EQ(*Decode<std::vector<std::optional<int>>>(Json("[1,null]")), list);
}

TEST(Codec, BytesAreOpaqueAndReadFromBase64) {
  const Bytes bytes{std::string("\x00\xFF{", 3)};
  Payload payload = *Encode(bytes);
  EXPECT_EQ(payload.encoding, Encoding::kBytes);
  EXPECT_EQ(payload.data, bytes.data);
  EXPECT_EQ(*Decode<Bytes>(payload), bytes);
  EXPECT_EQ(*Decode<Bytes>(Json("\"AP97\"")), bytes);
  EXPECT_FALSE(Decode<Bytes>(Json("7")).ok());
  EXPECT_THAT(std::string(Decode<std::string>(payload).status().message()),
              HasSubstr("expected string, got bytes"));
}

TEST(Codec, MessagesTravelDeterministicallyAndReadFromJson) {
  v1::Payload message;
  message.set_data("x");
  for (int i = 0; i < 50; ++i) (*message.mutable_metadata())[std::to_string(i)] = "v";
  Payload payload = *Encode(message);
  EXPECT_EQ(payload.encoding, Encoding::kProtobuf);
  EXPECT_EQ(payload.content_type, "flux.v1.Payload");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Encode(v1::Payload(message))->data, payload.data);
  EXPECT_EQ(Decode<v1::Payload>(payload)->metadata_size(), 50);

  absl::StatusOr<v1::Scope> from_json = Decode<v1::Scope>(Json(R"({"parameters":3,"new":1})"));
  ASSERT_TRUE(from_json.ok()) << from_json.status();
  EXPECT_EQ(from_json->parameters(), 3u);

  EXPECT_THAT(std::string(Decode<v1::Scope>(payload).status().message()),
              HasSubstr("expected message flux.v1.Scope, got message flux.v1.Payload"));
  payload.data = "\xFF";
  EXPECT_THAT(std::string(Decode<v1::Payload>(payload).status().message()), HasSubstr("damaged"));
  EXPECT_THAT(std::string(Decode<v1::Scope>(Json("[]")).status().message()),
              HasSubstr("not the JSON form of flux.v1.Scope"));
  EXPECT_EQ(Decode<std::vector<v1::Scope>>(Json(R"([{"parameters":3}])"))->at(0).parameters(), 3u);
}

TEST(Codec, UsersOwnComesFirst) {
  EXPECT_EQ(Encode(app::Rational{1, 3})->content_type, "rational");
  EXPECT_EQ(*Decode<app::Rational>(*Encode(app::Rational{1, 3})), (app::Rational{1, 3}));
  Payload bad;
  bad.data = "x";
  EXPECT_EQ(Decode<app::Rational>(bad).status().message(), "no slash");
}

TEST(Codec, NamesTypesForPeople) {
  EXPECT_EQ(internal::TypeName<std::vector<app::Point>>(), "list<Point>");
  EXPECT_EQ((internal::TypeName<std::map<std::string, std::optional<uint16_t>>>()),
            "map<optional<uint16>>");
  EXPECT_EQ((internal::TypeName<std::tuple<app::Rational, v1::Scope, Bytes>>()),
            "tuple<rational, flux.v1.Scope, bytes>");
}

TEST(Project, FollowsPointersThroughJsonAndLists) {
  const Payload json = Json(R"({"a":[{"b/c":1},null],"m~n":"x","":2})");
  struct Case {
    std::string pointer;
    std::string found;  // empty: no value
  };
  const std::vector<Case> cases = {
      {"", json.data}, {"/a/0", R"({"b/c":1})"}, {"/a/0/b~1c", "1"}, {"/m~0n", "\"x\""},
      {"/", "2"},      {"/a/1", "null"},         {"/a/1/z", ""},     {"/z", ""},
      {"/a/2", ""},
  };
  for (const Case& c : cases) {
    absl::StatusOr<Payload> found = internal::Project(json, c.pointer);
    ASSERT_TRUE(found.ok()) << c.pointer << ": " << found.status();
    EXPECT_EQ(found->data, c.found) << c.pointer;
    EXPECT_EQ(found->encoding, c.found.empty() ? Encoding::kNone : Encoding::kJson) << c.pointer;
  }
  const Payload list = *Encode(std::vector<app::Point>{{1, {}}, {2, 0.5}});
  EXPECT_EQ(internal::Project(list, "/1/weight")->data, "0.5");
  EXPECT_EQ(internal::Project(list, "/7")->encoding, Encoding::kNone);
  for (const std::string bad : {"a", "/a/x", "/a/01", "/m~2n", "/~"}) {
    EXPECT_EQ(internal::Project(json, bad).status().code(), absl::StatusCode::kInvalidArgument)
        << bad;
  }
  EXPECT_THAT(std::string(internal::Project(*Encode(Bytes{"x"}), "/a").status().message()),
              HasSubstr("only JSON and lists"));
  EXPECT_FALSE(internal::Project(list, "/x").ok());
}

TEST(Project, TurnsListsIntoJsonText) {
  EXPECT_EQ(
      *internal::ToJsonText(*Encode(std::vector<std::vector<std::optional<int>>>{{1, {}}, {}})),
      "[[1,null],[]]");
  EXPECT_FALSE(internal::ToJsonText(*Encode(std::vector<Bytes>{{"x"}})).ok());
  Payload deep = Json("1");
  for (size_t i = 0; i < kJsonDepthMax + 5; ++i) {
    internal::ListWriter writer;
    writer.Add(deep);
    deep = std::move(writer).Finish();
  }
  EXPECT_FALSE(internal::ToJsonText(deep).ok());
}

}  // namespace
}  // namespace flux
