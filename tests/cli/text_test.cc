#include "client/fluxctl/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/fluxctl/app.h"
#include "client/fluxctl/json.h"
#include "client/fluxctl/table.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(DurationText, UsesTheUnitsThatFit) {
  const struct {
    absl::Duration duration;
    const char* text;
  } kCases[] = {
      {absl::ZeroDuration(), "0ms"},
      {absl::Milliseconds(350), "350ms"},
      {absl::Milliseconds(999), "999ms"},
      {absl::Milliseconds(1000), "1.0s"},
      {absl::Milliseconds(1249), "1.2s"},
      {absl::Milliseconds(9999), "9.9s"},
      {absl::Milliseconds(10000), "10s"},
      {absl::Seconds(59), "59s"},
      {absl::Seconds(60), "1m00s"},
      {absl::Seconds(125), "2m05s"},
      {absl::Hours(1), "1h00m"},
      {absl::Hours(27) + absl::Minutes(5), "1d03h"},
      {absl::Hours(24 * 400), "400d"},
      {-absl::Seconds(3), "0ms"},
      {absl::InfiniteDuration(), "forever"},
  };
  for (const auto& c : kCases) EXPECT_EQ(DurationText(c.duration), c.text);
}

TEST(AgeText, IsInWholeSecondsBothWays) {
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  const auto at = [&](absl::Duration ago) { return absl::ToUnixMillis(now - ago); };
  EXPECT_EQ(AgeText(0, now), "-");
  EXPECT_EQ(AgeText(at(absl::Milliseconds(400)), now), "0s");
  EXPECT_EQ(AgeText(at(absl::Milliseconds(1900)), now), "1s");
  EXPECT_EQ(AgeText(at(absl::Minutes(2)), now), "2m00s");
  EXPECT_EQ(AgeText(at(-absl::Seconds(5)), now), "5s");
}

TEST(TimeText, IsRfc3339InUtc) {
  EXPECT_EQ(TimeText(0), "-");
  EXPECT_EQ(TimeText(1'714'564'800'250), "2024-05-01T12:00:00.250Z");
}

TEST(BytesText, GrowsItsUnit) {
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1536), "1.5 KiB");
  EXPECT_EQ(BytesText(uint64_t{20} << 20U), "20 MiB");
  EXPECT_EQ(BytesText(uint64_t{3} << 60U), "3072 PiB");
}

TEST(ParseDuration, TakesNumbersWithUnits) {
  const struct {
    const char* text;
    absl::Duration duration;
  } kGood[] = {
      {"0", absl::ZeroDuration()},
      {"250ms", absl::Milliseconds(250)},
      {"90s", absl::Seconds(90)},
      {"1.5h", absl::Minutes(90)},
      {"1h30m", absl::Minutes(90)},
      {"2d", absl::Hours(48)},
      {"1w", absl::Hours(24 * 7)},
      {"1d12h", absl::Hours(36)},
      {"1m1ms", absl::Minutes(1) + absl::Milliseconds(1)},
  };
  for (const auto& c : kGood) {
    const auto parsed = ParseDuration(c.text);
    ASSERT_TRUE(parsed.ok()) << c.text << ": " << parsed.status();
    EXPECT_EQ(*parsed, c.duration) << c.text;
  }
  for (const char* bad :
       {"", "5", "-5s", "s", "5x", "1h-2m", "1.s", "9999999999999s", "1h 2m", "1e3s"}) {
    EXPECT_EQ(ParseDuration(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ParseWhen, TakesAgesDatesAndTimes) {
  const absl::Time now = absl::FromUnixSeconds(1'714'564'800);  // 2024-05-01T12:00:00Z
  const struct {
    const char* text;
    absl::Time time;
  } kGood[] = {
      {"now", now},
      {"2h", now - absl::Hours(2)},
      {"1d12h", now - absl::Hours(36)},
      {"2024-05-01", now - absl::Hours(12)},
      {"2024-05-01T12:00:00Z", now},
      {"2024-05-01T14:00:00.5+02:00", now + absl::Milliseconds(500)},
  };
  for (const auto& c : kGood) {
    const auto parsed = ParseWhen(c.text, now);
    ASSERT_TRUE(parsed.ok()) << c.text << ": " << parsed.status();
    EXPECT_EQ(*parsed, c.time) << c.text;
  }
  for (const char* bad :
       {"", "yesterday", "2024-13-01", "2024-05-01 12:00", "12:00", "infinite-future"}) {
    EXPECT_EQ(ParseWhen(bad, now).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ParseUntil, IncludesTheWholeOfADate) {
  const absl::Time now = absl::FromUnixSeconds(1'714'564'800);  // 2024-05-01T12:00:00Z
  const absl::Duration day = absl::Hours(24);
  const absl::Time today = now - absl::Hours(12);
  EXPECT_EQ(*ParseUntil("2024-04-30", now), today - absl::Milliseconds(1));
  EXPECT_EQ(*ParseUntil("2024-05-01", now), now) << "the day is not over";
  EXPECT_EQ(*ParseUntil("2024-05-02", now), today + 2 * day - absl::Milliseconds(1))
      << "a day to come is for the server to refuse";
  EXPECT_EQ(*ParseUntil("2h", now), now - absl::Hours(2));
  EXPECT_EQ(*ParseUntil("2024-04-30T00:00:00Z", now), today - day);
  EXPECT_EQ(*ParseUntil("now", now), now);
  EXPECT_FALSE(ParseUntil("yesterday", now).ok());
}

TEST(ParseTimeToCome, RefusesADurationAndTeachesTheRightForm) {
  const absl::Time now = absl::FromUnixSeconds(1'714'564'800);  // 2024-05-01T12:00:00Z
  EXPECT_EQ(*ParseTimeToCome("now", now, "--in"), now);
  EXPECT_EQ(*ParseTimeToCome("2024-05-02", now, "--in"), now + absl::Hours(12));
  EXPECT_EQ(*ParseTimeToCome("2024-05-01T12:00:01Z", now, ""), now + absl::Seconds(1));
  const struct {
    const char* text;
    const char* wait_option;
    const char* message;
  } kBad[] = {
      {"2h", "--in", "\"2h\" is a duration, not a time; use --in 2h"},
      {"2h", "",
       "\"2h\" is a duration, not a time; give a date (2030-05-01) or an RFC 3339 time "
       "(2030-05-01T12:00:00Z)"},
      {"soon", "--in",
       "\"soon\" is not a time; give a date (2030-05-01) or an RFC 3339 time "
       "(2030-05-01T12:00:00Z)"},
      {"infinite-future", "",
       "\"infinite-future\" is not a time; give a date (2030-05-01) or an RFC 3339 time "
       "(2030-05-01T12:00:00Z)"},
  };
  for (const auto& c : kBad) {
    const absl::Status status = ParseTimeToCome(c.text, now, c.wait_option).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_EQ(status.message(), c.message);
  }
}

TEST(IsUtf8, TakesWholeCharactersOnly) {
  for (const char* good : {"", "chart-17", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x8e\x89"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const char* bad : {"\xff", "a\xc3", "\x80", "\xc0\xaf", "\xed\xa0\x80", "\xe2\x82"}) {
    EXPECT_FALSE(IsUtf8(bad)) << Escape(bad, Lines::kOne);
  }
}

TEST(Escape, DisarmsWhatATerminalWouldObey) {
  const struct {
    std::string in, one, many;
  } kCases[] = {
      {"plain ünïcödé ✔", "plain ünïcödé ✔", "plain ünïcödé ✔"},
      {"a\x1b[2Jb", "a\\x1b[2Jb", "a\\x1b[2Jb"},
      {"a\nb\tc\rd", "a\\nb\\tc\\rd", "a\nb\tc\\rd"},
      {"\x7f\x07", "\\x7f\\x07", "\\x7f\\x07"},
      {"\xc2\x9b"
       "31m",
       "\\u{9b}31m", "\\u{9b}31m"},  // C1 CSI
      {"a\xe2\x80\xae"
       "b",
       "a\\u{202e}b", "a\\u{202e}b"},                          // right-to-left override
      {"\xff\xc3", "\\xff\\xc3", "\\xff\\xc3"},                // not UTF-8, cut sequence
      {"\xc0\xaf", "\\xc0\\xaf", "\\xc0\\xaf"},                // overlong
      {"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\xed\\xa0\\x80"},  // surrogate
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(Escape(c.in, Lines::kOne), c.one);
    EXPECT_EQ(Escape(c.in, Lines::kMany), c.many);
  }
}

TEST(EscapeJson, LeavesEqualJson) {
  const Json json = {{"k",
                      "a\xc2\x9b"
                      "b\xe2\x80\xae é"}};
  const std::string escaped = EscapeJson(Dump(json, 2));
  EXPECT_THAT(escaped, HasSubstr("a\\u009bb\\u202e é"));
  EXPECT_EQ(Json::parse(escaped), json);
}

TEST(Width, CountsColumnsNotBytes) {
  EXPECT_EQ(Width("abc"), 3U);
  EXPECT_EQ(Width("é✔"), 2U);
  EXPECT_EQ(Width("日本"), 4U);
  EXPECT_EQ(Width("e\u0301"), 1U);
  EXPECT_EQ(Fit("日本語", 4, true), "日…");
  EXPECT_EQ(Fit("abcdef", 5, false), "ab...");
  EXPECT_EQ(Fit("abcdef", 2, false), "..");
  EXPECT_EQ(Fit("abc", 3, true), "abc");
}

TEST(Paint, NeedsAThemeWithColour) {
  EXPECT_EQ(Paint({}, Style::kBad, "x"), "x");
  EXPECT_EQ(Paint({.color = true}, Style::kBad, "x"), "\x1b[31mx\x1b[0m");
  EXPECT_EQ(Paint({.color = true}, Style::kPlain, "x"), "x");
  EXPECT_EQ(Paint({.color = true}, Style::kBad, ""), "");
}

TEST(NearestWord, FindsWhatWasMeant) {
  const std::vector<std::string> words = {"start", "run", "list", "terminate"};
  EXPECT_EQ(NearestWord("strat", words), "start");
  EXPECT_EQ(NearestWord("lsit", words), "list");
  EXPECT_EQ(NearestWord("term", words), "terminate");
  EXPECT_EQ(NearestWord("frobnicate", words), "");
}

TEST(Table, AlignsUnderUpperCaseHeaders) {
  Table table;
  table.columns = {{.header = "NAME"}, {.header = "COUNT", .right = true}, {.header = "NOTE"}};
  table.rows = {{Cell("a"), Cell("1"), Cell("first")},
                {Cell("long-name"), Cell("12345678")},
                {Cell(""), Cell("2"), Cell("日本")}};
  EXPECT_EQ(Render(Theme{}, table),
            "NAME          COUNT  NOTE\n"
            "a                 1  first\n"
            "long-name  12345678\n"
            "-                 2  日本\n");
}

TEST(Table, EscapesCellsAndKeepsOneRowALine) {
  Table table;
  table.columns = {{.header = "A"}, {.header = "B"}};
  table.rows = {{Cell("x\ny"), Cell("\x1b[31mred")}};
  EXPECT_EQ(Render(Theme{}, table), "A     B\nx\\ny  \\x1b[31mred\n");
}

TEST(Table, PagesLineUp) {
  Table first;
  first.columns = {{.header = "A"}, {.header = "B"}};
  first.rows = {{Cell("wide-cell"), Cell("1")}};
  Table second = first;
  EXPECT_EQ(Render(Theme{}, first), "A          B\nwide-cell  1\n");
  second.rows = {{Cell("x"), Cell("2")}};
  second.widths = first.widths;
  second.headers = false;
  EXPECT_EQ(Render(Theme{}, second), "x          2\n");
}

TEST(Table, ShrinksOnlyWhatMayAndOnlyOnATerminal) {
  Table table;
  table.columns = {
      {.header = "ID"}, {.header = "TASKS", .shrink = true}, {.header = "N", .right = true}};
  table.rows = {{Cell("0123456789"), Cell("a-very-long-list-of-tasks"), Cell("7")}};
  EXPECT_EQ(Render(Theme{.unicode = true, .terminal = true, .columns = 30}, table),
            "ID          TASKS            N\n"
            "0123456789  a-very-long-li…  7\n");
  // Below its least width a table is wide rather than empty.
  EXPECT_EQ(Render(Theme{.columns = 5}, table),
            "ID          TASKS     N\n"
            "0123456789  a-ver...  7\n");
}

TEST(Table, ColoursCellsWithoutMovingThem) {
  Table table;
  table.columns = {{.header = "A"}, {.header = "B"}};
  table.rows = {{Cell("ok", Style::kGood), Cell("x")}};
  EXPECT_EQ(Render(Theme{.color = true}, table),
            "\x1b[1mA\x1b[0m   \x1b[1mB\x1b[0m\n\x1b[32mok\x1b[0m  x\n");
}

TEST(Block, AlignsValuesAndLeavesOutEmptyOnes) {
  EXPECT_EQ(
      Render(Theme{}, Block{{"Name", Cell("x")}, {"Empty", Cell("")}, {"Workflow", Cell("y")}}),
      "Name:      x\nWorkflow:  y\n");
}

TEST(TreeIndent, DrawsBothWays) {
  EXPECT_EQ(TreeIndent({false}, true), "├─ ");
  EXPECT_EQ(TreeIndent({false, true}, true), "│  └─ ");
  EXPECT_EQ(TreeIndent({true, false}, false), "   |- ");
  EXPECT_EQ(TreeIndent({}, true), "");
}

TEST(Bar, FillsByFraction) {
  EXPECT_EQ(Bar(0.5, 10, false), "[####....]");
  EXPECT_EQ(Bar(0.5, 4, true), "██░░");
  EXPECT_EQ(Bar(0.55, 4, true), "██▏░");
  EXPECT_EQ(Bar(-1, 4, true), "░░░░");
  EXPECT_EQ(Bar(2, 4, true), "████");
  EXPECT_EQ(Bar(1, 2, true), "");
}

TEST(CheckJson, KeepsTheTextAndCutsTheBlanks) {
  const auto text = CheckJson("--input", "\xEF\xBB\xBF \n {\"n\": 12345678901234567890.10}\n");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "{\"n\": 12345678901234567890.10}");
}

TEST(CheckJson, SaysWhereItWentWrong) {
  const struct {
    const char* text;
    const char* message;
    const char* hint;
  } kCases[] = {
      {"{\"a\": 1,}", "--input is not JSON: line 1, column 9: in object key: unexpected '}'",
       "  {\"a\": 1,}\n          ^"},
      {"[1,\n 2,\n x]", "line 3, column 2:", "   x]\n   ^"},
      {"nul", "line 1, column ", "nul"},
      {"1 2", "line 1, column 3:", "  1 2\n    ^"},
      {"[\"é\", }", "line 1, column 7:", "  [\"é\", }\n        ^"},
      {"", "--input is empty", ""},
      {"  \n", "--input is empty", ""},
      {"\"a\x01\"", "line 1, column 3:", "\\x01"},
  };
  for (const auto& c : kCases) {
    const auto result = CheckJson("--input", c.text);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(c.message)) << c.text;
    EXPECT_THAT(HintOf(result.status()), HasSubstr(c.hint)) << c.text;
  }
}

TEST(CheckJson, RefusesNestingBeyondItsLimit) {
  const std::string deep(kJsonDepthMax, '[');
  const std::string closed(kJsonDepthMax, ']');
  EXPECT_TRUE(CheckJson("x", deep + closed).ok());
  EXPECT_EQ(CheckJson("x", "[" + deep + closed + "]").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SplitJsonArray, KeepsEachElementsText) {
  const auto parts = SplitJsonArray("--args", R"([1.0, "a,]\"[", {"k": [1, 2]}, [] , null])");
  ASSERT_TRUE(parts.ok());
  EXPECT_THAT(*parts, testing::ElementsAre("1.0", R"("a,]\"[")", R"({"k": [1, 2]})", "[]", "null"));
  EXPECT_THAT(*SplitJsonArray("--args", "[]"), testing::IsEmpty());
  EXPECT_EQ(SplitJsonArray("--args", "{}").status().code(), absl::StatusCode::kInvalidArgument);
}

v1::Payload Make(v1::Encoding encoding, const std::string& data, const std::string& type = "") {
  v1::Payload payload;
  payload.set_encoding(encoding);
  payload.set_data(data);
  payload.set_content_type(type);
  return payload;
}

TEST(PayloadToJson, DecodesWhatCanBeRead) {
  v1::PayloadList list;
  *list.add_items() = Make(v1::ENCODING_JSON, "{\"b\": 1, \"a\": 2}");
  *list.add_items() = Make(v1::ENCODING_NONE, "");
  *list.add_items() = Make(v1::ENCODING_BYTES, "\x01\x02");
  EXPECT_EQ(Dump(PayloadToJson(Make(v1::ENCODING_LIST, list.SerializeAsString())), -1),
            R"([{"b":1,"a":2},null,{"encoding":"bytes","content_type":"","data_base64":"AQI="}])");
  EXPECT_EQ(Dump(PayloadToJson(Make(v1::ENCODING_PROTOBUF, "x", "my.Type")), -1),
            R"({"encoding":"protobuf","content_type":"my.Type","data_base64":"eA=="})");
  EXPECT_EQ(Dump(PayloadToJson(Make(v1::ENCODING_JSON, "{broken")), -1),
            R"({"encoding":"json","content_type":"","data_base64":"e2Jyb2tlbg=="})");
  // Nested too deep for a recursive printer: shown as bytes, not a crash.
  EXPECT_TRUE(
      PayloadToJson(Make(v1::ENCODING_JSON, std::string(100000, '[') + std::string(100000, ']')))
          .is_object());
}

TEST(ToJson, GivesAStableDocument) {
  v1::DescribeExecutionResponse response;
  v1::ExecutionInfo& info = *response.mutable_info();
  info.set_workflow_id("chart-17");
  info.set_status(v1::EXECUTION_STATUS_RUNNING);
  info.set_start_time_ms(1'714'564'800'250);
  info.set_definition_hash("\x01\xff");
  (*info.mutable_labels())["z"] = "1";
  (*info.mutable_labels())["a"] = "2";
  *response.add_inputs() = Make(v1::ENCODING_JSON, "\"a.txt\"");
  const Json json = ToJson(response);
  EXPECT_EQ(json["info"]["workflow_id"], "chart-17");
  EXPECT_EQ(json["info"]["status"], "running");
  EXPECT_EQ(json["info"]["start_time"], "2024-05-01T12:00:00.250Z");
  EXPECT_TRUE(json["info"]["close_time"].is_null());
  EXPECT_EQ(json["info"]["definition_hash"], "01ff");
  EXPECT_EQ(Dump(json["info"]["labels"], -1), R"({"a":"2","z":"1"})");
  EXPECT_EQ(Dump(json["inputs"], -1), R"(["a.txt"])");
  EXPECT_TRUE(json["result"].is_null());
  EXPECT_TRUE(json["steps"].is_array());
  EXPECT_FALSE(json["info"].contains("start_time_ms"));
}

TEST(Definition, SurvivesItsJsonForm) {
  v1::Definition definition;
  definition.set_name("d");
  definition.set_format(1);
  v1::Scope& scope = *definition.add_scopes();
  v1::Step& step = *scope.add_steps();
  step.set_name("a");
  step.mutable_task()->set_task("t");
  *step.add_inputs()->mutable_literal() = Make(v1::ENCODING_JSON, "{\"raw\": 1.0}");
  const std::string text = Dump(DefinitionToJson(definition), 2);
  auto back = DefinitionFromJson("x", text);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->SerializeAsString(), definition.SerializeAsString());
  back = DefinitionFromJson("x", "{\"definition\": " + text + ", \"summary\": {}}");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->SerializeAsString(), definition.SerializeAsString());
  const auto unknown = DefinitionFromJson("d.json", R"({"name": "x", "stepz": []})");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("stepz"));
}

TEST(CompleteAddress, FillsInThePortAndRefusesNonsense) {
  const struct {
    const char* in;
    const char* out;
  } kGood[] = {
      {"localhost", "localhost:4510"}, {"10.0.0.1:99", "10.0.0.1:99"},
      {"[::1]:7", "[::1]:7"},          {"[::1]", "[::1]:4510"},
      {"::1", "[::1]:4510"},           {"unix:/tmp/s", "unix:/tmp/s"},
  };
  for (const auto& c : kGood) {
    const auto address = CompleteAddress(c.in);
    ASSERT_TRUE(address.ok()) << c.in << address.status();
    EXPECT_EQ(*address, c.out);
  }
  for (const char* bad :
       {"", "http://x:1", "a b", "host:", "host:0", "host:65536", "host:port", "a/b"}) {
    EXPECT_EQ(CompleteAddress(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(CompletionScript, NamesEveryCommandAndOption) {
  const CommandTree tree;
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = CompletionScript(tree, shell);
    std::vector<const CLI::App*> all = {&tree.app()};
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (const CLI::Option* option : all[i]->get_options()) {
        for (const std::string& name : option->get_lnames())
          EXPECT_THAT(script, HasSubstr(name)) << shell;
      }
      for (const CLI::App* sub : all[i]->get_subcommands([](const CLI::App*) { return true; })) {
        EXPECT_THAT(script, HasSubstr(sub->get_name())) << shell;
        all.push_back(sub);
      }
    }
    EXPECT_GT(all.size(), 20U);
  }
}

TEST(CommandTree, EveryCommandsHelpHasAnExampleAndExitCodes) {
  const CommandTree tree;
  std::vector<const CLI::App*> all = {&tree.app()};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto subs = all[i]->get_subcommands([](const CLI::App*) { return true; });
    EXPECT_THAT(all[i]->help(), HasSubstr("Example:\n  ")) << all[i]->get_name();
    if (subs.empty()) {
      EXPECT_THAT(all[i]->help(), HasSubstr("Exit codes:")) << all[i]->get_name();
    }
    all.insert(all.end(), subs.begin(), subs.end());
  }
}

TEST(PointAt, ShowsTheLineAndThePlace) {
  EXPECT_EQ(PointAt("steps >", 6), "  steps >\n        ^");
  EXPECT_EQ(PointAt("steps >", 99), "  steps >\n         ^") << "behind the end";
  EXPECT_EQ(PointAt("", 0), "  \n  ^");
  EXPECT_EQ(PointAt("a = 1\nand b\nor c", 10), "  and b\n      ^") << "only its line";
  EXPECT_EQ(PointAt("\x1b\xc3\xa4 x", 4), "  \\x1b\xc3\xa4 x\n        ^")
      << "columns, not bytes; nothing that a terminal obeys";
  const std::string long_line = std::string(100, 'a') + "!" + std::string(100, 'b');
  EXPECT_EQ(PointAt(long_line, 100), "  ..." + std::string(36, 'a') + "!" + std::string(29, 'b') +
                                         "...\n  " + std::string(39, ' ') + "^")
      << "cut on both sides, and both show it";
  EXPECT_EQ(PointAt(std::string(36, 'a') + "!", 36),
            "  " + std::string(36, 'a') + "!\n  " + std::string(36, ' ') + "^")
      << "nothing is cut";
}

struct Answer {
  int code = 0;
  std::string err;
};

// Without a server: what gets past the command line fails on its first call.
Answer RunHere(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"fluxctl", "--address", "unix:/nonexistent/fluxd"});
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  CommandTree tree;
  Answer answer;
  testing::internal::CaptureStderr();
  answer.code = tree.Run(static_cast<int>(argv.size()), argv.data());
  answer.err = testing::internal::GetCapturedStderr();
  return answer;
}

// The command's words, and something for each argument that it cannot do without.
std::vector<std::string> Complete(const CLI::App* leaf) {
  std::vector<std::string> words;
  for (const CLI::App* at = leaf; at->get_parent() != nullptr; at = at->get_parent()) {
    words.insert(words.begin(), at->get_name());
  }
  for (const CLI::Option* option : leaf->get_options()) {
    if (!option->get_required()) continue;
    if (!option->get_positional()) words.push_back(option->get_name());
    words.push_back("x");
  }
  return words;
}

TEST(CommandTree, NumbersAreNeverNegativeNorWords) {
  const CommandTree tree;
  std::vector<const CLI::App*> all = {&tree.app()};
  int numbers = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto subs = all[i]->get_subcommands([](const CLI::App*) { return true; });
    all.insert(all.end(), subs.begin(), subs.end());
    for (const CLI::Option* option : all[i]->get_options()) {
      if (option->get_type_name() != "N") continue;
      ++numbers;
      for (const char* bad : {"-1", "many", "0x10", "1.5", "", "99999999999999999999"}) {
        std::vector<std::string> arguments = Complete(all[i]);
        arguments.insert(arguments.end(), {option->get_name(), bad});
        const Answer answer = RunHere(arguments);
        EXPECT_EQ(answer.code, kExitUsage) << all[i]->get_name() << " " << option->get_name();
        EXPECT_THAT(answer.err, HasSubstr(option->get_name())) << all[i]->get_name() << bad;
      }
    }
  }
  EXPECT_GE(numbers, 7) << "--limit, --number, --max-actions; others have a range";
  const Answer good = RunHere({"workflow", "list", "--limit", "007"});
  EXPECT_EQ(good.code, kExitUnavailable) << good.err;
}

TEST(CommandTree, TextThatIsNotUtf8IsRefusedByTheNameOfItsOption) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"workflow", "start", "w", "--id", "a\xff"}, "--id is not UTF-8"},
      {{"workflow", "start", "w\xff"}, "NAME is not UTF-8"},
      {{"workflow", "start", "w", "--request-id=\xc3"}, "--request-id is not UTF-8"},
      {{"workflow", "start", "w", "-l", "k=v", "-l", "k2=\xff"}, "--label is not UTF-8"},
      {{"workflow", "cancel", "good", "bad\xff", "--reason", "r"}, "WORKFLOW_ID is not UTF-8"},
      {{"workflow", "cancel", "a", "--reason", "\xff"}, "--reason is not UTF-8"},
      {{"workflow", "signal", "a", "\xff"}, "EVENT is not UTF-8"},
      {{"workflow", "list", "-n", "\xff"}, "--namespace is not UTF-8"},
  };
  for (const auto& c : kCases) {
    const Answer answer = RunHere(c.arguments);
    EXPECT_EQ(answer.code, kExitUsage) << c.message;
    EXPECT_THAT(answer.err, StartsWith(std::string("fluxctl: ") + c.message));
  }
  EXPECT_THAT(RunHere({"definition", "put", "/nonexistent/\xff"}).err, HasSubstr("cannot open"))
      << "a file may be called anything";
}

TEST(CommandTree, AnIdThatIsMadeUpWhereNoneIsGivenIsNotEmpty) {
  const std::vector<std::vector<std::string>> cases = {
      {"workflow", "start", "w", "--id", ""},
      {"workflow", "run", "w", "--id", ""},
      {"workflow", "start", "w", "--request-id", ""},
      {"workflow", "signal", "a", "b", "--event-id", ""}};
  for (const auto& arguments : cases) {
    const Answer answer = RunHere(arguments);
    EXPECT_EQ(answer.code, kExitUsage) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(arguments[arguments.size() - 2] + ": is empty"));
  }
}

TEST(CommandTree, NoTimeAtAllIsRefused) {
  for (const char* none : {"0", "0s", "0.1ms"}) {
    const Answer answer = RunHere({"workflow", "list", "--timeout", none});
    EXPECT_EQ(answer.code, kExitUsage) << none;
    EXPECT_THAT(answer.err, HasSubstr("leaves no time for an answer"));
  }
}

TEST(CommandTree, HelpSaysWhatDatesAndWatchLeaveOpen) {
  const CommandTree tree;
  const auto help = [&](const std::string& group, const std::string& name) {
    return tree.app().get_subcommand(group)->get_subcommand(name)->help();
  };
  EXPECT_THAT(help("workflow", "watch"), HasSubstr("payloads are left to 'show' and 'result'"));
  EXPECT_THAT(help("schedule", "backfill"), HasSubstr("a date with its whole day"));
}

}  // namespace
}  // namespace flux::ctl
