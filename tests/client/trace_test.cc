#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/graph.h"
#include "flux/v1/definition.pb.h"
#include "flux/workflow.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace flux {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Page {
  int number = 0;
  std::string text;
};
FLUX_STRUCT(Page, number, text)

constexpr ErrorType kBadPage{"bad-page"};
constexpr ErrorType kRejected{"rejected"};
constexpr Task<std::vector<Page>(std::string)> kSplit{
    "charts.split",
    {.queue = "io",
     .timeout = absl::Minutes(5),
     .retry = {.max_attempts = 5,
               .initial_backoff = absl::Milliseconds(250),
               .factor = 1.5,
               .jitter = 0},
     .non_retriable = {kBadPage}}};
constexpr Task<int64_t(Page, std::string)> kCode{"charts.code",
                                                 {.heartbeat = absl::Microseconds(1500)}};
constexpr Task<std::string(std::vector<int64_t>)> kMerge{"charts.merge"};
constexpr Task<void(std::vector<int64_t>, std::string)> kUnpublish{"charts.unpublish"};
constexpr Task<bool(int64_t)> kEnough{"enough"};
constexpr Task<int64_t(int64_t)> kNext{"next"};
constexpr Task<int64_t(std::optional<int64_t>)> kMaybe{"maybe"};
constexpr Event<bool> kApproved{"approved"};

v1::Definition Parse(const absl::StatusOr<internal::Traced>& traced) {
  v1::Definition definition;
  EXPECT_TRUE(traced.ok()) << traced.status();
  if (traced.ok()) {
    EXPECT_TRUE(definition.ParseFromString(traced->definition_bytes));
  }
  return definition;
}

void ExpectDefinition(const absl::StatusOr<internal::Traced>& traced, const std::string& text) {
  v1::Definition expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &expected));
  const v1::Definition definition = Parse(traced);
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, definition)) << difference << "\n"
                                                         << definition.DebugString();
}

// What the server would say of it.
absl::Status ServerSays(const absl::StatusOr<internal::Traced>& traced) {
  return engine::Graph::Compile(Parse(traced), traced->hash).status();
}

constexpr Workflow<std::string(std::string)> kChart{
    "code-chart",
    {.version = "2", .description = "codes", .execution_timeout = absl::Hours(1)},
    [](Graph& g, Value<std::string> path) {
      auto pages = g.Call(kSplit, path);
      auto codes = g.Map(pages, [&](Value<Page> page) {
                      return g.Call(kCode, page, path).Retry({.max_attempts = 9}).Queue("nlp");
                    }).MaxParallel(200);
      auto first = g.Call(kCode, Page{7, "x"}, "a.txt").After(codes).Timeout(absl::Seconds(2));
      auto enough = g.Call(kEnough, first).Named("enough?").Priority(3);
      return g.If(
          enough, [&] { return g.Call(kMerge, codes); },
          [&] { return g.Fail(kRejected, "too few"); });
    }};

TEST(Trace, WritesTheGraphOfTheLambda) {
  ExpectDefinition(kChart.Trace(), R"pb(
    name: "code-chart"
    version: "2"
    description: "codes"
    format: 1
    execution_timeout_ms: 3600000
    parameter_types: "string"
    result_type: "string"
    scopes {
      parameters: 1
      steps {
        name: "charts.split"
        inputs { parameter: 0 }
        task {
          task: "charts.split"
          queue: "io"
          retry { max_attempts: 5 initial_backoff_ms: 250 factor_permille: 1500 no_jitter: true }
          timeouts { start_to_close_ms: 300000 }
          non_retriable: "bad-page"
        }
      }
      steps {
        name: "map"
        inputs { step: 0 }
        inputs { parameter: 0 }
        map { body: 1 max_parallel: 200 }
      }
      steps {
        name: "charts.code"
        inputs { literal { data: '{"number":7,"text":"x"}' encoding: ENCODING_JSON } }
        inputs { literal { data: '"a.txt"' encoding: ENCODING_JSON } }
        after: 1
        task {
          task: "charts.code"
          timeouts { heartbeat_ms: 2 start_to_close_ms: 2000 }
        }
      }
      steps {
        name: "enough?"
        inputs { step: 2 }
        task { task: "enough" priority: 3 }
      }
      steps {
        name: "if"
        inputs { step: 3 }
        inputs { step: 1 }
        switch {
          cases {
            match { data: "true" encoding: ENCODING_JSON }
            body: 2
          }
          default_body: 3
        }
      }
      result { step: 4 }
    }
    scopes {
      parameters: 2
      steps {
        name: "charts.code-2"
        inputs { parameter: 0 }
        inputs { parameter: 1 }
        task {
          task: "charts.code"
          queue: "nlp"
          retry { max_attempts: 9 }
          timeouts { heartbeat_ms: 2 }
        }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps {
        name: "charts.merge"
        inputs { parameter: 0 }
        task { task: "charts.merge" }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps {
        name: "fail"
        fail { failure { type: "rejected" message: "too few" non_retriable: true } }
      }
      result { step: 0 }
    }
  )pb");
  EXPECT_TRUE(ServerSays(kChart.Trace()).ok()) << ServerSays(kChart.Trace());
}

constexpr Workflow<int64_t(int64_t, std::vector<std::vector<int64_t>>)> kDeep{
    "deep", [](Graph& g, Value<int64_t> limit, Value<std::vector<std::vector<int64_t>>> rows) {
      auto base = g.Call(kNext, limit);
      auto nested = g.Map(rows, [&](Value<std::vector<int64_t>> row) {
        return g.Map(row, [&](Value<int64_t> cell) {
          return g.Block([&] { return g.Join(cell, base, limit); });
        });
      });
      auto counted = g.Loop(0, [&](Value<int64_t> state) {
        auto next = g.Call(kNext, state);
        auto done = g.Call(kEnough, next);
        return g.Until(done, next);
      });
      auto chosen = g.Switch(counted)
                        .Case(1, [&] { return g.Skip(); })
                        .Case(2, [&] { return base; })
                        .Default([&] { return g.Call(kMaybe, limit); })
                        .Catch({kBadPage, kRejected},
                               [&](Value<Failure> failure) {
                                 auto type = g.Join(failure.Field(&Failure::type));
                                 g.Sleep(absl::Seconds(1)).After(type);
                                 return base;
                               })
                        .Catch([&] { return g.Fail(kRejected, "again"); });
      g.Block([&] { g.Sleep(absl::Milliseconds(5)); }).After(nested);
      g.SleepMilliseconds(chosen);
      return chosen;
    }};

TEST(Trace, ThreadsCapturesThroughEveryBodyBetween) {
  ExpectDefinition(kDeep.Trace(), R"pb(
    name: "deep"
    format: 1
    parameter_types: "int64"
    parameter_types: "list<list<int64>>"
    result_type: "int64"
    scopes {
      parameters: 2
      steps {
        name: "next"
        inputs { parameter: 0 }
        task { task: "next" }
      }
      steps {
        name: "map"
        inputs { parameter: 1 }
        inputs { step: 0 optional: true }
        inputs { parameter: 0 optional: true }
        map { body: 1 }
      }
      steps {
        name: "loop"
        inputs { literal { data: "0" encoding: ENCODING_JSON } }
        loop {
          body: 4
          done { step: 1 }
        }
      }
      steps {
        name: "switch"
        inputs { step: 2 }
        inputs { step: 0 }
        inputs { parameter: 0 optional: true }
        switch {
          cases {
            match { data: "1" encoding: ENCODING_JSON }
            body: 5
          }
          cases {
            match { data: "2" encoding: ENCODING_JSON }
            body: 6
          }
          default_body: 7
        }
        catches {
          types: "bad-page"
          types: "rejected"
          body: 8
          captures { step: 0 }
        }
        catches { body: 9 }
      }
      steps {
        name: "block"
        after: 1
        block { body: 10 }
      }
      steps {
        name: "sleep"
        inputs { step: 3 }
        sleep {}
      }
      result { step: 3 }
    }
    scopes {
      parameters: 3
      steps {
        name: "map-2"
        inputs { parameter: 0 }
        inputs { parameter: 1 optional: true }
        inputs { parameter: 2 optional: true }
        map { body: 2 }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 3
      steps {
        name: "block-2"
        inputs { parameter: 0 optional: true }
        inputs { parameter: 1 optional: true }
        inputs { parameter: 2 optional: true }
        block { body: 3 }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 3
      steps {
        name: "join"
        inputs { parameter: 0 optional: true }
        inputs { parameter: 1 optional: true }
        inputs { parameter: 2 optional: true }
        join {}
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps {
        name: "next-2"
        inputs { parameter: 0 }
        task { task: "next" }
      }
      steps {
        name: "enough"
        inputs { step: 0 }
        task { task: "enough" }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 2
      steps {
        name: "skip"
        skip {}
      }
      result { step: 0 }
    }
    scopes {
      parameters: 2
      result { parameter: 0 }
    }
    scopes {
      parameters: 2
      steps {
        name: "maybe"
        inputs { parameter: 1 optional: true }
        task { task: "maybe" }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 2
      steps {
        name: "join-2"
        inputs { parameter: 0 pointer: "/type" optional: true }
        join {}
      }
      steps {
        name: "sleep-2"
        after: 0
        sleep { duration_ms: 1000 }
      }
      result { parameter: 1 }
    }
    scopes {
      parameters: 1
      steps {
        name: "fail"
        fail { failure { type: "rejected" message: "again" non_retriable: true } }
      }
      result { step: 0 }
    }
    scopes {
      steps {
        name: "sleep-3"
        sleep { duration_ms: 5 }
      }
      result { literal { data: "null" encoding: ENCODING_JSON } }
    }
  )pb");
  EXPECT_TRUE(ServerSays(kDeep.Trace()).ok()) << ServerSays(kDeep.Trace());
}

// A capture that one step needs and another could do without is needed.
constexpr Workflow<std::vector<int64_t>(std::vector<int64_t>)> kMixedUse{
    "mixed-use", [](Graph& g, Value<std::vector<int64_t>> items) {
      auto outer = g.Call(kNext, 1);
      return g.Map(items, [&](Value<int64_t> item) {
        auto maybe = g.Call(kMaybe, outer);
        auto sure = g.Call(kNext, outer);
        return g.Call(kNext, item).After(maybe, sure);
      });
    }};

TEST(Trace, ACaptureIsOptionalOnlyIfAllItsUsesAre) {
  const v1::Definition definition = Parse(kMixedUse.Trace());
  EXPECT_FALSE(definition.scopes(0).steps(1).inputs(1).optional());
  EXPECT_TRUE(definition.scopes(1).steps(0).inputs(0).optional());
}

constexpr Workflow<std::string(std::string)> kSelf{
    "self", {.version = "1"}, [](Graph& g, Value<std::string> id) {
      auto approved = g.WaitEvent(kApproved).Timeout(absl::Hours(48)).Default(false);
      auto codes = g.Map(std::vector<Page>{{1, "a"}}, [&](Value<Page> page) {
        return g.If(approved, [&] { return page.Field(&Page::number); });
      });
      auto merged = g.Call(kMerge, std::vector<int64_t>{1, 2})
                        .OnUndo(kUnpublish)
                        .OnExhausted(kPark)
                        .ScheduleToStart(absl::Seconds(1))
                        .ScheduleToClose(absl::Seconds(2))
                        .Heartbeat(absl::Seconds(3));
      g.Child(kSelf, id).WorkflowId("other").Detached().After(codes);
      g.Child(kChart, merged).Named("inner");
      g.Emit(kApproved, id, true);
      return g.Child(kSelf, "again");
    }};

TEST(Trace, WritesEveryOtherKind) {
  ExpectDefinition(kSelf.Trace(), R"pb(
    name: "self"
    version: "1"
    format: 1
    parameter_types: "string"
    result_type: "string"
    scopes {
      parameters: 1
      steps {
        name: "approved"
        wait_event {
          event: "approved"
          timeout_ms: 172800000
          default_value { data: "false" encoding: ENCODING_JSON }
          type: "bool"
        }
      }
      steps {
        name: "map"
        inputs {
          literal {
            data: "\n\033\n\027{\"number\":1,\"text\":\"a\"}\020\001"
            encoding: ENCODING_LIST
          }
        }
        inputs { step: 0 }
        map { body: 1 }
      }
      steps {
        name: "charts.merge"
        inputs {
          literal { data: "\n\005\n\0011\020\001\n\005\n\0012\020\001" encoding: ENCODING_LIST }
        }
        task {
          task: "charts.merge"
          timeouts { schedule_to_start_ms: 1000 schedule_to_close_ms: 2000 heartbeat_ms: 3000 }
        }
        undo { task { task: "charts.unpublish" } }
        on_exhausted: ON_EXHAUSTED_PARK
      }
      steps {
        name: "self"
        inputs { parameter: 0 }
        after: 1
        child { workflow: "self" version: "1" detached: true workflow_id: "other" }
      }
      steps {
        name: "inner"
        inputs { step: 2 }
        child { workflow: "code-chart" version: "2" }
      }
      steps {
        name: "emit approved"
        inputs { literal { data: "true" encoding: ENCODING_JSON } }
        inputs { parameter: 0 }
        emit { event: "approved" }
      }
      steps {
        name: "self-2"
        inputs { literal { data: '"again"' encoding: ENCODING_JSON } }
        child { workflow: "self" version: "1" }
      }
      result { step: 6 }
    }
    scopes {
      parameters: 2
      steps {
        name: "if"
        inputs { parameter: 1 }
        inputs { parameter: 0 }
        switch {
          cases {
            match { data: "true" encoding: ENCODING_JSON }
            body: 2
          }
        }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      result { parameter: 0 pointer: "/number" }
    }
  )pb");
  ASSERT_EQ(kSelf.Trace()->children.size(), 1u);
  EXPECT_EQ(kSelf.Trace()->children[0].name, "code-chart");
}

TEST(Trace, IsDoneOnceAndIsDeterministic) {
  EXPECT_EQ(&kChart.Trace(), &kChart.Trace());
  EXPECT_EQ(kChart.Trace()->hash.size(), 32u);
  EXPECT_NE(kChart.Trace()->hash, kDeep.Trace()->hash);
  // One lambda, two workflows.
  constexpr auto kMake = [](std::string_view name) {
    return Workflow<int64_t()>(name, [](Graph& g) { return g.Call(kNext, 1); });
  };
  EXPECT_EQ(Parse(kMake("one").Trace()).name(), "one");
  EXPECT_EQ(Parse(kMake("two").Trace()).name(), "two");
  // Equal graphs hash alike, wherever they are written.
  constexpr Workflow<int64_t()> kHere{"one", [](Graph& g) { return g.Call(kNext, 1); }};
  EXPECT_EQ(kHere.Trace()->hash, kMake("one").Trace()->hash);
}

TEST(Trace, AStepHasItsLabels) {
  constexpr Workflow<int64_t()> kLabelled{
      "labelled", [](Graph& g) {
        return g.Call(kNext, 1).Label("team", "ocr").Label("model", "v1").Label("model", "v2");
      }};
  const v1::Definition definition = Parse(kLabelled.Trace());
  const auto& labels = definition.scopes(0).steps(0).labels();
  ASSERT_EQ(labels.size(), 2u);
  EXPECT_EQ(labels.at("team"), "ocr");
  EXPECT_EQ(labels.at("model"), "v2");
  EXPECT_TRUE(ServerSays(kLabelled.Trace()).ok());
  constexpr Workflow<int64_t()> kBad{"bad",
                                     [](Graph& g) { return g.Call(kNext, 1).Label("", "x"); }};
  EXPECT_THAT(std::string(kBad.Trace().status().message()), HasSubstr("a label may not be empty"));
}

TEST(Trace, AVoidWorkflowResultsInNothing) {
  constexpr Workflow<void()> kVoid{"void", [](Graph& g) { g.Sleep(absl::Seconds(1)); }};
  const v1::Definition definition = Parse(kVoid.Trace());
  EXPECT_EQ(definition.scopes(0).result().literal().data(), "null");
  EXPECT_TRUE(ServerSays(kVoid.Trace()).ok());
}

TEST(Trace, AResultMayBeALiteralOrAParameter) {
  constexpr Workflow<std::string()> kLiteral{"literal", [](Graph&) { return "done"; }};
  EXPECT_EQ(Parse(kLiteral.Trace()).scopes(0).result().literal().data(), "\"done\"");
  constexpr Workflow<int(int)> kEcho{"echo", [](Graph&, Value<int> n) { return n; }};
  EXPECT_EQ(Parse(kEcho.Trace()).scopes(0).result().parameter(), 0u);
  EXPECT_TRUE(ServerSays(kEcho.Trace()).ok());
}

TEST(EncodeArguments, ConvertsWithoutLoss) {
  constexpr Workflow<int(int8_t, double, std::optional<int>, std::string)> kTyped{
      "typed", [](Graph&, auto, auto, auto, auto) { return 1; }};
  const auto inputs = kTyped.EncodeArguments(7, 2, std::nullopt, "x");
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  EXPECT_EQ((*inputs)[0].data, "7");
  EXPECT_EQ((*inputs)[1].data, "2");
  EXPECT_EQ((*inputs)[2].encoding, Encoding::kNone);
  EXPECT_EQ((*inputs)[3].data, "\"x\"");
  EXPECT_EQ(kTyped.EncodeArguments(300, 2, 1, "x").status().message(),
            "argument 1 cannot be encoded: 300 does not fit into int8");
  EXPECT_THAT(
      std::string(kTyped.EncodeArguments(1, (int64_t{1} << 53) + 1, 1, "x").status().message()),
      HasSubstr("argument 2 cannot be encoded"));
  EXPECT_THAT(std::string(kTyped.EncodeArguments(1, 1.0, 1, "\xFF").status().message()),
              HasSubstr("argument 4 cannot be encoded: text is not UTF-8"));
}

// ---- mistakes that only the trace can see
// ---------------------------------------------------------------------------

struct Mistake {
  const char* name;
  const absl::StatusOr<internal::Traced>& (*trace)();
  int line;  // of the offending call; 0: none is named
  const char* why;
};

// The line a lambda's offending call is on is the line this macro's user marks with MARK.
int marked = 0;
#define MARK (marked = __LINE__, g)

template <typename F>
const absl::StatusOr<internal::Traced>& TraceOf(F body) {
  static_assert(std::is_empty_v<F>);
  const Workflow<int64_t(int64_t)> workflow("mistaken", body);
  return workflow.Trace();
}

void ExpectMistake(const absl::StatusOr<internal::Traced>& traced, const std::string& why,
                   bool with_place = true) {
  ASSERT_FALSE(traced.ok()) << "traced, but should say: " << why;
  EXPECT_EQ(traced.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(traced.status().message()), HasSubstr(why));
  EXPECT_THAT(std::string(traced.status().message()), HasSubstr("workflow mistaken: "));
  if (with_place) {
    EXPECT_THAT(std::string(traced.status().message()),
                HasSubstr(absl::StrCat("trace_test.cc:", marked, ": ")));
  }
}

TEST(TraceMistake, AValueEscapesItsBody) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  std::optional<Value<int64_t>> leaked;
                  g.Map(std::vector<int64_t>{1}, [&](Value<int64_t> item) {
                    auto inner = g.Call(kNext, item);
                    leaked = inner;
                    return inner;
                  });
                  return MARK.Call(kNext, *leaked);
                  (void)n;
                }),
                "argument 1 of \"next\" is the value of step \"next\" (made at ");
}

TEST(TraceMistake, AnItemEscapesItsBody) {
  const auto& traced = TraceOf([](Graph& g, Value<int64_t>) {
    std::optional<Value<int64_t>> leaked;
    g.Map(std::vector<int64_t>{1}, [&](Value<int64_t> item) {
       leaked = item;
       return item;
     }).Named("rows");
    return MARK.If(
        true, [&] { return g.Call(kNext, 1); }, [&] { return g.Call(kNext, *leaked); });
  });
  ASSERT_FALSE(traced.ok());
  EXPECT_THAT(std::string(traced.status().message()), HasSubstr("the item of step \"rows\""));
  EXPECT_THAT(
      std::string(traced.status().message()),
      HasSubstr("belongs to a body of step \"rows\" that has ended; return it from the body"));
}

TEST(TraceMistake, AValueEscapesAsTheResult) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  std::optional<Value<int64_t>> leaked;
                  g.Block([&] { leaked = g.Call(kNext, n); });
                  return *leaked;
                }),
                "the workflow's result is the value of step \"next\"", false);
}

TEST(TraceMistake, AValueOfASiblingBody) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  std::optional<Value<int64_t>> leaked;
                  return g.If(
                      true,
                      [&] {
                        leaked = g.Call(kNext, n);
                        return *leaked;
                      },
                      [&] { return MARK.Call(kNext, *leaked); });
                }),
                "that has ended");
}

TEST(TraceMistake, AHandlerUsesWhatCameLater) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  auto first = g.Call(kNext, n);
                  auto later = g.Call(kNext, n).Named("later");
                  return first.Catch([&] { return MARK.Call(kNext, later); });
                }),
                "step \"later\" is used in a body of step \"next\", which is written before it");
}

TEST(TraceMistake, AHandlerUsesItsOwnStep) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  auto first = g.Call(kNext, n).Named("first");
                  return first.Catch([&] { return MARK.Call(kNext, first); });
                }),
                "step \"first\" is used in a body of step \"first\"");
}

TEST(TraceMistake, TwoStepsOfOneName) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  auto first = g.Call(kNext, n).Named("twin");
                  return MARK.Call(kNext, first).Named("twin");
                }),
                "two steps are named \"twin\" (the other one at ");
}

TEST(TraceMistake, AfterAParameterALaterStepOrAnOuterOne) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) { return MARK.Call(kNext, 1).After(n); }),
                "After() takes steps; parameter 1 of the workflow is there from the beginning");
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  auto first = MARK.Call(kNext, n);
                  auto second = g.Call(kNext, n);
                  return first.After(second);
                }),
                "After() takes steps written before this one, and step \"next\" is not");
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  auto first = g.Call(kNext, n);
                  return g.Block([&] { return MARK.Call(kNext, n).After(first); });
                }),
                "After() takes steps of the same body");
}

TEST(TraceMistake, BadNamesAndFigures) {
  struct Case {
    const absl::StatusOr<internal::Traced>& traced;
    const char* why;
  };
  const std::vector<Case> cases = {
      {TraceOf([](Graph& g, Value<int64_t> n) { return g.Call(kNext, n).Named(""); }),
       "a step name may not be empty"},
      {TraceOf([](Graph& g, Value<int64_t> n) { return g.Call(kNext, n).Named("a\tb"); }),
       "bad step name \"a\\tb\": control characters"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Call(kNext, n).Queue(std::string(257, 'q'));
       }),
       "257 bytes, at most 256"},
      {TraceOf(
           [](Graph& g, Value<int64_t> n) { return g.Call(kNext, n).Timeout(absl::Seconds(-1)); }),
       "a timeout of -1s is out of range"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Call(kNext, n).Timeout(absl::InfiniteDuration());
       }),
       "a timeout of inf is out of range"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Call(kNext, n).Retry({.max_attempts = 10'001});
       }),
       "10001 attempts, at most 10000"},
      {TraceOf([](Graph& g, Value<int64_t> n) { return g.Call(kNext, n).Retry({.factor = 0.5}); }),
       "a backoff factor of 0.5"},
      {TraceOf([](Graph& g, Value<int64_t> n) { return g.Call(kNext, n).Retry({.jitter = 1.5}); }),
       "a jitter of 1.5"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         g.Map(std::vector<int64_t>{1}, kNext).MaxParallel(0);
         return n;
       }),
       "MaxParallel(0)"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Loop(n, [&](Value<int64_t> s) { return g.Call(kNext, s); });
       }),
       "the loop never ends"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Loop(n, [&](Value<int64_t> s) { return g.Call(kNext, s); }).Turns(0);
       }),
       "Turns(0)"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         g.Switch(n);
         return n;
       }),
       "a Switch needs a Case or a Default"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Switch(n).Case(1, [&] { return n; }).Case(1, [&] { return n; });
       }),
       "two Cases match 1"},
      {TraceOf([](Graph& g, Value<int64_t> n) {
         return g.Switch(n).Default([&] { return n; }).Default([&] { return n; });
       }),
       "two Defaults"},
      {TraceOf([](Graph& g, Value<int64_t>) { return g.Fail(errors::kHeartbeat, "no"); }),
       "belong to Flux"},
      {TraceOf([](Graph& g, Value<int64_t>) { return g.Call(Task<int64_t(int8_t)>("t"), 300); }),
       "argument 1 of \"t\" cannot be encoded: 300 does not fit into int8"},
      {TraceOf([](Graph& g, Value<int64_t>) {
         return g.Call(Task<int64_t(std::string)>("t"), "\xFF");
       }),
       "not UTF-8"},
  };
  for (const Case& c : cases) ExpectMistake(c.traced, c.why, /*with_place=*/false);
  for (const Case& c : cases) {
    EXPECT_THAT(std::string(c.traced.status().message()), HasSubstr("trace_test.cc:")) << c.why;
  }
}

struct Partly {
  int64_t listed = 0;
  int64_t unlisted = 0;
};
FLUX_STRUCT(Partly, listed)

TEST(TraceMistake, AMemberThatIsNotListed) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t>) {
                  auto partly = g.Call(Task<Partly()>("partly"));
                  marked = __LINE__ + 1;
                  return partly.Field(&Partly::unlisted);
                }),
                "not listed in its type's FLUX_STRUCT");
}

TEST(TraceMistake, BodiesNestTooDeep) {
  struct Nest {
    static Value<int64_t> At(Graph& g, Value<int64_t> n, int depth) {
      if (depth == 0) return n;
      return g.Block([&] { return At(g, n, depth - 1); });
    }
  };
  EXPECT_TRUE(TraceOf([](Graph& g, Value<int64_t> n) { return Nest::At(g, n, 32); }).ok());
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) { return Nest::At(g, n, 33); }),
                "deeper than 32 levels", false);
}

TEST(TraceMistake, TooManySteps) {
  const auto& most = TraceOf([](Graph& g, Value<int64_t> n) {
    for (int i = 0; i < 50'000; ++i) n = g.Call(kNext, n);
    return n;
  });
  EXPECT_TRUE(most.ok()) << most.status();
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  for (int i = 0; i < 50'001; ++i) n = g.Call(kNext, n);
                  return n;
                }),
                "more than 50000 steps", false);
}

TEST(TraceMistake, TooManyInputs) {
  const auto join = [](Graph& g, Value<int64_t> n, size_t inputs) {
    g.Join(std::vector<Value<int64_t>>(inputs, n));
    return n;
  };
  static constexpr auto kJoin = join;
  EXPECT_TRUE(TraceOf([](Graph& g, Value<int64_t> n) { return kJoin(g, n, 1000); }).ok());
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) { return kJoin(g, n, 1001); }),
                "1001 inputs, at most 1000", false);
}

TEST(TraceMistake, TheFirstOneIsTold) {
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t> n) {
                  auto first = MARK.Call(kNext, n).Named("");
                  return g.Call(kNext, first).Named("a\nb");
                }),
                "a step name may not be empty");
}

// A handle kept beyond its trace is harmless.
std::optional<Value<int64_t>>& Kept() {
  static std::optional<Value<int64_t>> kept;
  return kept;
}

TEST(TraceMistake, AValueOfAnEarlierTrace) {
  ASSERT_TRUE(TraceOf([](Graph& g, Value<int64_t> n) {
                Kept() = g.Call(kNext, n);
                return n;
              }).ok());
  ExpectMistake(TraceOf([](Graph& g, Value<int64_t>) { return MARK.Call(kNext, *Kept()); }),
                "is a value of another workflow (or of an earlier trace)");
  const CallStep<int64_t(int64_t)> step(Kept()->ref());
  step.Queue("q").Named("late").Catch([&] { return int64_t{1}; });
  Kept().reset();
}

}  // namespace
}  // namespace flux
