#include "engine/visibility/query.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kNow = 1'714'564'800'000;  // 2024-05-01T12:00:00Z
constexpr int64_t kHour = 3'600'000;
const RunId kRun = *RunId::FromText("018f3a6b2c007000800000000000002a");

v1::ExecutionSummary Failed() {
  v1::ExecutionSummary summary;
  summary.set_workflow_id("chart-17");
  summary.set_run_id(kRun.Bytes());
  summary.set_workflow("code-chart");
  summary.set_version("2");
  summary.set_status(v1::EXECUTION_STATUS_FAILED);
  summary.set_start_time_ms(kNow - 3 * kHour);
  summary.set_close_time_ms(kNow - kHour);
  summary.set_failure_type("bad_page");
  summary.set_steps_completed(7);
  (*summary.mutable_labels())["tenant"] = "acme";
  (*summary.mutable_labels())["my region"] = "eu-west";
  return summary;
}

v1::ExecutionSummary Running() {
  v1::ExecutionSummary summary;
  summary.set_workflow_id("nightly");
  summary.set_run_id(kRun.Bytes());
  summary.set_workflow("report");
  summary.set_status(v1::EXECUTION_STATUS_RUNNING);
  summary.set_start_time_ms(kNow - 2 * kHour);
  summary.set_parked_steps(2);
  return summary;
}

Query Parsed(const std::string& text) {
  absl::StatusOr<Query> query = Query::Parse(text, kNow);
  EXPECT_TRUE(query.ok()) << text << ": " << query.status();
  return query.ok() ? *query : Query();
}

std::string ErrorOf(const std::string& text) {
  const absl::StatusOr<Query> query = Query::Parse(text, kNow);
  EXPECT_EQ(query.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(query.status().message());
}

struct Case {
  std::string text;
  bool failed;   // matches Failed()
  bool running;  // matches Running()
};

TEST(Query, SaysWhatMatches) {
  const std::vector<Case> cases = {
      {"", true, true},
      {"  \n\t", true, true},
      {R"(status = "failed")", true, false},
      {R"(status == 'failed')", true, false},
      {R"(status != "failed")", false, true},
      {R"(status in ("running", "completed"))", false, true},
      {R"(status not in ("running", "completed"))", true, false},
      {R"(status = "open")", false, true},
      {R"(status = "closed")", true, false},
      {R"(workflow = "code-chart")", true, false},
      {R"(workflow ^= "code")", true, false},
      {R"(not workflow ^= "code")", false, true},
      {R"(version = "2")", true, false},
      {R"(version = "")", false, true},
      {R"(workflow_id = "chart-17")", true, false},
      {R"(workflow_id ^= "chart-")", true, false},
      {R"(workflow_id ^= "")", true, true},
      {R"(workflow_id in ("nightly", "chart-17"))", true, true},
      {R"(run_id = "018f3a6b2c007000800000000000002a")", true, true},
      {R"(run_id ^= "018f")", true, true},
      {R"(run_id ^= "018e")", false, false},
      {"started > -2h", false, false},
      {"started >= -2h", false, true},
      {"started < -2h", true, false},
      {"started <= -2h", true, true},
      {"started = -2h", false, true},
      {"started > -1d", true, true},
      {"started > -1h59m", false, false},
      {"started > 2024-05-01T09:30:00Z", false, true},
      {R"(started > "2024-05-01T11:30:00+02:00")", false, true},
      {"started >= 2024-05-01", true, true},
      {"started >= 2024-05-02", false, false},
      {"started < now", true, true},
      {"started < +1w", true, true},
      {"closed > -2h", true, false},
      {"closed < -2h", false, false},
      {"not closed < -2h", true, true},
      {"closed != -1h", false, true},
      {"duration = 2h", true, true},
      {"duration > 1h59m59s", true, true},
      {"duration > 2h", false, false},
      {"duration < 120m1ms", true, true},
      {R"(failure_type = "bad_page")", true, false},
      {R"(failure_type = "")", false, true},
      {R"(failure_type != "bad_page")", false, true},
      {"parked > 0", false, true},
      {"parked = 0", true, false},
      {"not parked >= 2", true, false},
      {"parked in (1, 2)", false, true},
      {"parked != 2", true, false},
      {"steps = 7", true, false},
      {"steps < 7", false, true},
      {"steps in (7, 0)", true, true},
      {R"(label.tenant = "acme")", true, false},
      {R"(label.tenant != "acme")", false, true},
      {R"(label.tenant = "")", false, true},
      {R"(label."my region" ^= "eu-")", true, false},
      {R"(label.tenant not in ("acme", "other"))", false, true},
      {R"(status = "failed" and label.tenant = "acme" and started > -4h)", true, false},
      {R"(status = "failed" AND NOT label.tenant = "acme")", false, false},
      {R"(status = "running" or label.tenant = "acme")", true, true},
      {R"(workflow = "x" or workflow = "y" and status = "failed")", false, false},
      {R"((workflow = "x" or workflow = "code-chart") and status = "failed")", true, false},
      {R"(not (status = "failed" and label.tenant = "acme"))", false, true},
      {R"(not (status = "running" or steps > 100))", true, false},
      {R"(not not status = "failed")", true, false},
      {R"(workflow = "a \"b\" \\ 'c'")", false, false},
  };
  for (const Case& each : cases) {
    const Query query = Parsed(each.text);
    EXPECT_EQ(query.Check(FieldsOf(Failed())), each.failed ? Match::kYes : Match::kNo) << each.text;
    EXPECT_EQ(query.Check(FieldsOf(Running())), each.running ? Match::kYes : Match::kNo)
        << each.text;
  }
}

TEST(Query, TextsMayHoldQuotesAndBackslashes) {
  v1::ExecutionSummary summary = Running();
  summary.set_workflow_id(R"(a "b" \ 'c')");
  EXPECT_EQ(Parsed(R"(workflow_id = "a \"b\" \\ 'c'")").Check(FieldsOf(summary)), Match::kYes);
  EXPECT_EQ(Parsed(R"(workflow_id = 'a "b" \\ \'c\'')").Check(FieldsOf(summary)), Match::kYes);
}

TEST(Query, SaysWhenLabelsOrStepsDecide) {
  ExecutionFields fields = FieldsOf(Failed());
  fields.labels = nullptr;
  EXPECT_EQ(Parsed(R"(label.tenant = "acme")").Check(fields), Match::kUnknown);
  EXPECT_EQ(Parsed(R"(not label.tenant = "acme")").Check(fields), Match::kUnknown);
  EXPECT_EQ(Parsed("steps > 5").Check(fields), Match::kUnknown);
  EXPECT_EQ(Parsed("parked > 0").Check(fields), Match::kNo);
  EXPECT_EQ(Parsed(R"(status = "running" and steps > 5)").Check(fields), Match::kNo);
  EXPECT_EQ(Parsed(R"(status = "failed" and steps > 5)").Check(fields), Match::kUnknown);
  EXPECT_EQ(Parsed(R"(status = "failed" or steps > 5)").Check(fields), Match::kYes);
  EXPECT_EQ(Parsed(R"(status = "running" or steps > 5)").Check(fields), Match::kUnknown);
}

TEST(Query, OneKnownLabelDecidesWhatAsksForNoOther) {
  ExecutionFields fields = FieldsOf(Failed());
  fields.labels = nullptr;
  fields.known_label = "tenant";
  fields.known_value = "acme";
  const auto check = [&](const char* text) { return Parsed(text).Check(fields); };
  EXPECT_EQ(check(R"(label.tenant = "acme")"), Match::kYes);
  EXPECT_EQ(check(R"(label.tenant in ("other", "acme") and status = "failed")"), Match::kYes);
  EXPECT_EQ(check(R"(not label.tenant = "acme")"), Match::kNo);
  EXPECT_EQ(check(R"(label.tenant != "acme")"), Match::kNo);
  EXPECT_EQ(check(R"(label.tenant ^= "ac")"), Match::kYes);
  EXPECT_EQ(check(R"(label.tenant = "acme" and label.tier = "gold")"), Match::kUnknown);
  EXPECT_EQ(check(R"(label.tenant = "acme" and label.tier = "")"), Match::kUnknown);
  EXPECT_EQ(check(R"(label.tenant = "acme" and steps > 5)"), Match::kUnknown);
  EXPECT_EQ(check(R"(label.tenant = "acme" or steps > 5)"), Match::kYes);
}

TEST(Query, ErrorsSayWhereAndWhatWasExpected) {
  struct Wrong {
    std::string text;
    std::vector<std::string> parts;
  };
  const std::vector<Wrong> cases = {
      {"=", {"position 1:", "expected a field, found \"=\"", "fields are workflow, version"}},
      {"tenant = \"acme\"", {"position 1:", "no field is called \"tenant\"", "label.<name>"}},
      {"status = \"failed\" and", {"position 22:", "expected a field, found the end"}},
      {"status = \"failed\" started > -2h",
       {"position 19:", "expected \"and\", \"or\" or the end"}},
      {"status", {"position 7:", "expected an operator: =, !=, ^= or in"}},
      {"status = failed", {"position 10:", "a status in quotes", "found \"failed\""}},
      {"status = \"broken\"",
       {"position 10:", "no status is called \"broken\"", "running, ", "paused"}},
      {"status ^= \"fail\"", {"position 8:", "^= compares texts"}},
      {"status < \"failed\"", {"position 8:", "< compares times and numbers"}},
      {"workflow > \"a\"", {"position 10:", "compares times", "^= or in"}},
      {"workflow = code", {"position 12:", "expected a text in quotes, found \"code\""}},
      {"workflow = 17", {"expected a text in quotes"}},
      {"started > \"yesterday\"", {"position 11:", "a time: -2h"}},
      {"started > 2024-13-01", {"a time: -2h"}},
      {"started > -2x", {"a time span after the sign"}},
      {"started > -99999999999999w", {"a time span after the sign"}},
      {"started > -", {"a time span"}},
      {"started ^= -2h", {"=, !=, <, <=, > or >="}},
      {"duration > 90", {"a duration: 500ms"}},
      {"duration > -2h", {"a duration"}},
      {"steps > 1.5", {"a whole number"}},
      {"parked > 0.5", {"a whole number"}},
      {"parked ^= 0", {"=, !=, <, <=, > or >="}},
      {"steps > -1", {"a whole number"}},
      {"steps > \"7\"", {"a whole number"}},
      {"run_id = \"abc\"", {"run id \"abc\" is not one", "^="}},
      {"label. = \"x\"", {"lacks the label's name"}},
      {"label = \"x\"", {"no field is called \"label\""}},
      {"status in \"failed\"", {"position 11:", "\"(\" and a list of values"}},
      {"status in (\"failed\"", {"\",\" or \")\" in the list"}},
      {"status in ()", {"a status in quotes"}},
      {"status not \"failed\"", {"\"in\" after \"not\""}},
      {"(status = \"failed\"", {"expected \"and\", \"or\" or \")\", found the end"}},
      {"status = \"failed\")", {"found \")\""}},
      {"workflow = \"abc", {"position 12:", "no closing \""}},
      {"workflow = \"a\\n\"", {"position 14:", "a backslash stands before"}},
      {std::string("workflow = \"a\nb\""), {"control character"}},
      {"workflow ~ \"a\"", {"position 10:", "\"~\" means nothing here"}},
      {std::string("workflow = \"a\" \0", 16), {"position 16:"}},
      {std::string("\xff\xfe"), {"position 1:"}},
      {"and", {"expected a field, found \"and\""}},
  };
  for (const Wrong& each : cases) {
    const std::string error = ErrorOf(each.text);
    for (const std::string& part : each.parts) {
      EXPECT_THAT(error, HasSubstr(part)) << each.text;
    }
  }
}

TEST(Query, ErrorsCutLongTextsBetweenCharacters) {
  const std::string wide = "\xc3\xa4";  // two bytes
  std::string shown;
  for (int i = 0; i < 20; ++i) shown += wide;  // as much as fits
  EXPECT_THAT(ErrorOf("status = \"" + shown + "\""), HasSubstr("\"" + shown + "\""));
  EXPECT_THAT(ErrorOf("status = \"" + shown + wide + "\""), HasSubstr("\"" + shown + "…\""));
  const std::string odd = "a" + shown;  // the last one would be cut through
  EXPECT_THAT(ErrorOf("status = \"" + odd + "\""),
              HasSubstr("\"" + odd.substr(0, odd.size() - wide.size()) + "…\""));
}

TEST(Query, RefusesWhatIsTooLargeOrTooDeep) {
  const std::string term = R"(steps = 1)";
  std::string deep = std::string(kQueryDepthMax, '(') + term + std::string(kQueryDepthMax, ')');
  EXPECT_TRUE(Query::Parse(deep, kNow).ok());
  EXPECT_THAT(ErrorOf("(" + deep + ")"), HasSubstr("more than 64 parentheses"));
  std::string nots;
  for (int i = 0; i < kQueryDepthMax; ++i) nots += "not ";
  EXPECT_TRUE(Query::Parse(nots + term, kNow).ok());
  EXPECT_THAT(ErrorOf("not " + nots + term), HasSubstr("more than 64"));

  std::string list = "steps in (1";
  for (int i = 1; i < kQueryValuesMax; ++i) list += ",1";
  EXPECT_TRUE(Query::Parse(list + ")", kNow).ok());
  EXPECT_THAT(ErrorOf(list + ",1)"), HasSubstr("more than 1000 values"));

  const std::string padded = term + std::string(kQueryBytesMax - term.size(), ' ');
  EXPECT_TRUE(Query::Parse(padded, kNow).ok());
  EXPECT_THAT(ErrorOf(padded + " "), HasSubstr("16385 bytes"));
  EXPECT_LT(ErrorOf(std::string(kQueryBytesMax, 'x')).size(), 400u);
}

// Pieces of queries in random order, and queries with random bytes changed: each is parsed or
// refused, and a query that is parsed gives a definite answer that its bounds do not contradict.
TEST(Query, SurvivesAnyText) {
  const std::vector<std::string> pieces = {"status",     "workflow", "label.a",     "label.\"b c\"",
                                           "started",    "closed",   "duration",    "parked",
                                           "steps",      "run_id",   "workflow_id", "failure_type",
                                           "version",    "=",        "!=",          "<",
                                           "<=",         ">",        ">=",          "^=",
                                           "in",         "not",      "and",         "or",
                                           "(",          ")",        ",",           "\"failed\"",
                                           "\"open\"",   "'acme'",   "-2h",         "7d",
                                           "2024-05-01", "17",       "now",         "\"",
                                           "\\",         "",         "\xf0\x9f",    "label."};
  const std::string whole =
      R"((status = "failed" or not label.tenant in ("acme", "b")) and started > -4h and steps < 9)";
  std::mt19937 random(7);
  int parsed = 0;
  for (int round = 0; round < 40'000; ++round) {
    std::string text;
    if (round % 2 == 0) {
      const int count = static_cast<int>(random() % 12);
      for (int i = 0; i < count; ++i) absl::StrAppend(&text, pieces[random() % pieces.size()], " ");
    } else {
      text = whole;
      for (int i = static_cast<int>(random() % 3); i >= 0; --i) {
        text[random() % text.size()] = static_cast<char>(random());
      }
    }
    const absl::StatusOr<Query> query = Query::Parse(text, kNow);
    if (!query.ok()) {
      EXPECT_EQ(query.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ++parsed;
    const QueryBounds bounds = query->Bounds();
    for (const v1::ExecutionSummary& summary : {Failed(), Running()}) {
      const ExecutionFields fields = FieldsOf(summary);
      const Match match = query->Check(fields);
      ASSERT_NE(match, Match::kUnknown) << text;
      if (match == Match::kNo) continue;
      EXPECT_TRUE(bounds.statuses & StatusBit(fields.status)) << text;
      EXPECT_LE(bounds.start_min, fields.start_ms) << text;
      EXPECT_GE(bounds.start_max, fields.start_ms) << text;
      for (const QueryBounds::Label& label : bounds.labels) {
        const auto found = summary.labels().find(label.name);
        ASSERT_NE(found, summary.labels().end()) << text;
        EXPECT_THAT(label.values, ::testing::Contains(found->second)) << text;
      }
    }
  }
  EXPECT_GT(parsed, 1000);
}

TEST(Query, BoundsHoldWhatEveryMatchHas) {
  QueryBounds bounds =
      Parsed(R"(status = "failed" and label.tenant = "acme" and started > -2h)").Bounds();
  EXPECT_EQ(bounds.statuses, StatusBit(v1::EXECUTION_STATUS_FAILED));
  EXPECT_EQ(bounds.start_min, kNow - 2 * kHour);
  EXPECT_EQ(bounds.start_max, INT64_MAX);
  ASSERT_EQ(bounds.labels.size(), 1u);
  EXPECT_EQ(bounds.labels[0].name, "tenant");
  EXPECT_THAT(bounds.labels[0].values, ElementsAre("acme"));
  EXPECT_FALSE(bounds.workflows);

  bounds = Parsed(R"(workflow in ("b", "a") and (workflow = "a" or workflow = "c"))").Bounds();
  EXPECT_THAT(*bounds.workflows, ElementsAre("a"));
  EXPECT_EQ(bounds.statuses, kAllStatuses);

  bounds = Parsed(R"(workflow = "a" or status = "failed")").Bounds();
  EXPECT_FALSE(bounds.workflows);
  EXPECT_EQ(bounds.statuses, kAllStatuses);

  bounds = Parsed(R"(label.a = "1" and label.a = "2")").Bounds();
  EXPECT_THAT(bounds.labels[0].values, IsEmpty());

  bounds = Parsed(R"(label.a in ("1", "2") or label.a = "3" and label.b = "4")").Bounds();
  ASSERT_EQ(bounds.labels.size(), 1u);
  EXPECT_THAT(bounds.labels[0].values, ElementsAre("1", "2", "3"));

  bounds = Parsed(R"(label.a in ("1", ""))").Bounds();
  EXPECT_THAT(bounds.labels, IsEmpty());

  bounds = Parsed("not (started < -3h or started >= -1h)").Bounds();
  EXPECT_EQ(bounds.start_min, kNow - 3 * kHour);
  EXPECT_EQ(bounds.start_max, kNow - kHour);

  bounds = Parsed("started >= -3h and started < -1h").Bounds();
  EXPECT_EQ(bounds.start_max, kNow - kHour - 1);

  bounds = Parsed("closed <= -1h").Bounds();
  EXPECT_EQ(bounds.statuses, kClosedStatuses);
  EXPECT_EQ(bounds.start_max, kNow - kHour);
  EXPECT_EQ(Parsed("not closed <= -1h").Bounds().statuses, kAllStatuses);

  const StatusSet parked =
      StatusBit(v1::EXECUTION_STATUS_RUNNING) | StatusBit(v1::EXECUTION_STATUS_PAUSED);
  for (const char* some : {"parked > 0", "parked = 2", "not parked = 0", "not parked in (0, 1)"}) {
    EXPECT_EQ(Parsed(some).Bounds().statuses, parked) << some;
  }
  for (const char* none : {"parked >= 0", "parked != 2", "parked < 1", "not parked > 0"}) {
    EXPECT_EQ(Parsed(none).Bounds().statuses, kAllStatuses) << none;
  }

  bounds = Parsed(R"(workflow_id ^= "chart-1" or workflow_id ^= "chart-2")").Bounds();
  EXPECT_EQ(bounds.workflow_id_prefix, "chart-");
  bounds = Parsed(R"(workflow_id = "a" or workflow_id = "b")").Bounds();
  EXPECT_THAT(*bounds.workflow_ids, ElementsAre("a", "b"));
  bounds = Parsed(R"(run_id = "018f3a6b2c007000800000000000002a")").Bounds();
  EXPECT_THAT(*bounds.runs, ElementsAre(kRun));
}

TEST(Query, KnowsWhenCountsByStatusAndWorkflowAnswerIt) {
  EXPECT_TRUE(Parsed("").OnlyStatusAndWorkflow());
  EXPECT_TRUE(Parsed(R"(not (status = "failed" or workflow ^= "a"))").OnlyStatusAndWorkflow());
  EXPECT_FALSE(Parsed(R"(status = "failed" and started > -2h)").OnlyStatusAndWorkflow());
}

TEST(Query, AFiltersFieldsMustAllHold) {
  v1::ExecutionFilter filter;
  filter.set_query(R"(label.tenant = "acme" or status = "running")");
  EXPECT_EQ(Query::FromFilter(filter, kNow)->Check(FieldsOf(Failed())), Match::kYes);
  EXPECT_EQ(Query::FromFilter(filter, kNow)->Check(FieldsOf(Running())), Match::kYes);
  filter.set_workflow("code-chart");
  filter.set_workflow_id_prefix("chart-");
  filter.add_statuses(v1::EXECUTION_STATUS_FAILED);
  filter.add_statuses(v1::EXECUTION_STATUS_CANCELLED);
  filter.set_started_after_ms(kNow - 3 * kHour);
  filter.set_started_before_ms(kNow);
  EXPECT_EQ(Query::FromFilter(filter, kNow)->Check(FieldsOf(Failed())), Match::kYes);
  EXPECT_EQ(Query::FromFilter(filter, kNow)->Check(FieldsOf(Running())), Match::kNo);
  filter.set_started_before_ms(kNow - 3 * kHour);
  EXPECT_EQ(Query::FromFilter(filter, kNow)->Check(FieldsOf(Failed())), Match::kNo);
  filter.add_statuses(static_cast<v1::ExecutionStatus>(77));
  EXPECT_EQ(Query::FromFilter(filter, kNow).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace flux::engine
