// Tracing of events, children, pages, early joins, limits by key and continuations.
#include <optional>
#include <string>
#include <vector>

#include "flux/continue.h"
#include "flux/task_set.h"
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

struct Order {
  std::string customer;
  int64_t amount = 0;
  int64_t unlisted = 0;
};
FLUX_STRUCT(Order, customer, amount)

constexpr ErrorType kRejected{"rejected"};
constexpr Task<flux::Page<Order>(std::string)> kListOrders{"orders.list"};
constexpr Task<flux::Page<Order>(std::string, std::string)> kListOf{"orders.list_of"};
constexpr Task<int64_t(Order)> kShip{"orders.ship"};
constexpr Task<int64_t(std::vector<int64_t>)> kSum{"sum"};
constexpr Task<void(int64_t, int64_t)> kCancel{"cancel"};
constexpr Task<std::string()> kName{"name"};
constexpr Event<bool> kApproved{"approved"};
constexpr Event<std::string> kApprovedText{"approved"};
constexpr Workflow<int64_t(int64_t)> kPart{
    "part", {.version = "7"}, [](Graph&, Value<int64_t> n) { return n; }};

void ExpectDefinition(const std::string& bytes, const std::string& text) {
  v1::Definition expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &expected));
  v1::Definition definition;
  ASSERT_TRUE(definition.ParseFromString(bytes));
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, definition)) << difference << "\n"
                                                         << definition.DebugString();
}

void ExpectTrace(const absl::StatusOr<internal::Traced>& traced, const std::string& text) {
  ASSERT_TRUE(traced.ok()) << traced.status();
  ExpectDefinition(traced->definition_bytes, text);
}

TEST(Language, PagesShareTheirCapturesWithTheItems) {
  constexpr Workflow<int64_t(std::string, int64_t)> kPaged{
      "paged", [](Graph& g, Value<std::string> tenant, Value<int64_t> rate) {
        auto shipped = g.MapPages(
                            [&](Value<std::string> cursor) {
                              return g.Call(kListOf, cursor, tenant).Queue("io");
                            },
                            "0",
                            [&](Value<Order> order) {
                              g.Call(kSum, g.Join(rate));
                              return g.Call(kShip, order).LimitKey(&Order::customer);
                            })
                           .MaxParallel(50)
                           .TolerateFailures(3)
                           .TolerateFailureShare(0.0256)
                           .First(1'000'000'000'000);
        return g.Call(kSum, shipped);
      }};
  ExpectTrace(kPaged.Trace(), R"pb(
    name: "paged"
    format: 1
    parameter_types: "string"
    parameter_types: "int64"
    result_type: "int64"
    scopes {
      parameters: 2
      steps {
        name: "map"
        inputs { literal { data: '"0"' encoding: ENCODING_JSON } }
        inputs { parameter: 0 }
        inputs { parameter: 1 optional: true }
        map {
          body: 2
          max_parallel: 50
          tolerated_failures: 3
          tolerated_failure_permille: 26
          first: 1000000000000
          page_body: 1
        }
      }
      steps {
        name: "sum"
        inputs { step: 0 }
        task { task: "sum" }
      }
      result { step: 1 }
    }
    scopes {
      parameters: 3
      steps {
        name: "orders.list_of"
        inputs { parameter: 0 }
        inputs { parameter: 1 }
        task { task: "orders.list_of" queue: "io" }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 3
      steps {
        name: "join"
        inputs { parameter: 2 optional: true }
        join {}
      }
      steps {
        name: "sum-2"
        inputs { step: 0 }
        task { task: "sum" }
      }
      steps {
        name: "orders.ship"
        inputs { parameter: 0 }
        task { task: "orders.ship" limit_key_pointer: "/customer" }
      }
      result { step: 2 }
    }
  )pb");
}

TEST(Language, PagesComeFromATaskAlone) {
  constexpr Workflow<int64_t(std::string)> kPaged{
      "paged-task", [](Graph& g, Value<std::string> first) {
        return g.Call(kSum, g.MapPages(kListOrders, first, kShip));
      }};
  ExpectTrace(kPaged.Trace(), R"pb(
    name: "paged-task"
    format: 1
    parameter_types: "string"
    result_type: "int64"
    scopes {
      parameters: 1
      steps {
        name: "map"
        inputs { parameter: 0 }
        map { body: 2 page_body: 1 }
      }
      steps {
        name: "sum"
        inputs { step: 0 }
        task { task: "sum" }
      }
      result { step: 1 }
    }
    scopes {
      parameters: 1
      steps {
        name: "orders.list"
        inputs { parameter: 0 }
        task { task: "orders.list" }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps {
        name: "orders.ship"
        inputs { parameter: 0 }
        task { task: "orders.ship" }
      }
      result { step: 0 }
    }
  )pb");
}

TEST(Language, APageIsJsonWithItemsAndNext) {
  const flux::Page<Order> page{{{.customer = "a", .amount = 1}}, "2"};
  const absl::StatusOr<Payload> payload = Encode(page);
  ASSERT_TRUE(payload.ok()) << payload.status();
  EXPECT_EQ(payload->data, R"({"items":[{"customer":"a","amount":1}],"next":"2"})");
  for (const char* last : {R"({"items":[]})", R"({"items":[],"next":null})"}) {
    const absl::StatusOr<flux::Page<Order>> read =
        Decode<flux::Page<Order>>(internal::JsonPayload(last));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->next, std::nullopt);
  }
}

TEST(Language, ChildrenJoinsAndEventsSayWhatTheyAllow) {
  constexpr Workflow<int64_t(std::string)> kWhole{
      "whole", [](Graph& g, Value<std::string> id) {
        auto name = g.Call(kName);
        auto a = g.Child(kPart, 1)
                     .WorkflowId("replaced")
                     .WorkflowId(id)
                     .WorkflowId(name)
                     .ParentClose(ParentClose::kAbandon);
        auto b = g.Child(kPart, 2)
                     .WorkflowId(id)
                     .WorkflowId("b")
                     .ParentClose(ParentClose::kTerminate)
                     .OnUndo(kCancel);
        auto c = g.Child(kPart, 3).Detached();
        g.Emit(kApproved, c.Field(&StartedChild::workflow_id), true)
            .Delay(absl::Minutes(2))
            .Catch([&] {});
        auto some =
            g.Join(a, b).First(1).TolerateFailures(1).Catch([&] { return std::vector<int64_t>{}; });
        return g.Call(kSum, some);
      }};
  ExpectTrace(kWhole.Trace(), R"pb(
    name: "whole"
    format: 1
    parameter_types: "string"
    result_type: "int64"
    scopes {
      parameters: 1
      steps {
        name: "name"
        task { task: "name" }
      }
      steps {
        name: "part"
        inputs { literal { data: "1" encoding: ENCODING_JSON } }
        inputs { step: 0 }
        child {
          workflow: "part"
          version: "7"
          parent_close: PARENT_CLOSE_POLICY_ABANDON
          id_input: true
        }
      }
      steps {
        name: "part-2"
        inputs { literal { data: "2" encoding: ENCODING_JSON } }
        child {
          workflow: "part"
          version: "7"
          workflow_id: "b"
          parent_close: PARENT_CLOSE_POLICY_TERMINATE
        }
        undo { task { task: "cancel" } }
      }
      steps {
        name: "part-3"
        inputs { literal { data: "3" encoding: ENCODING_JSON } }
        child { workflow: "part" version: "7" detached: true }
      }
      steps {
        name: "emit approved"
        inputs { literal { data: "true" encoding: ENCODING_JSON } }
        inputs { step: 3 pointer: "/workflow_id" }
        emit { event: "approved" delay_ms: 120000 }
        catches { body: 1 }
      }
      steps {
        name: "join"
        inputs { step: 1 optional: true }
        inputs { step: 2 optional: true }
        join { first: 1 tolerated_failures: 1 }
        catches { body: 2 }
      }
      steps {
        name: "sum"
        inputs { step: 5 }
        task { task: "sum" }
      }
      result { step: 6 }
    }
    scopes {
      parameters: 1
      result { literal { data: "null" encoding: ENCODING_JSON } }
    }
    scopes {
      parameters: 1
      result { literal { encoding: ENCODING_LIST } }
    }
  )pb");
}

// F5: the same name awaited with two types is refused when the workflow is defined.
TEST(Language, F5OneEventHasOneType) {
  constexpr Workflow<void()> kSame{"same", [](Graph& g) {
                                     g.WaitEvent(kApproved);
                                     g.Block([&] { g.WaitEvent(kApproved); });
                                   }};
  EXPECT_TRUE(kSame.Trace().ok()) << kSame.Trace().status();
  constexpr Workflow<void()> kTwo{"two", [](Graph& g) {
                                    g.WaitEvent(kApproved);
                                    g.Block([&] { g.WaitEvent(kApprovedText); });
                                  }};
  EXPECT_EQ(kTwo.Trace().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(kTwo.Trace().status().message()),
      ::testing::AllOf(HasSubstr("event \"approved\" is awaited as string here and as bool at "),
                       HasSubstr("language_test.cc:")));
}

template <typename F>
std::string MistakeOf(F body) {
  static_assert(std::is_empty_v<F>);
  const Workflow<void(std::string)> workflow("mistaken", body);
  const absl::StatusOr<internal::Traced>& traced = workflow.Trace();
  if (traced.ok()) return "no mistake";
  EXPECT_EQ(traced.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(traced.status().message()), HasSubstr("language_test.cc:"));
  return std::string(traced.status().message());
}

TEST(Language, MistakesAreNamedWithTheirPlace) {
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string>) { g.WaitEvent(kApproved).Default(true); }),
              HasSubstr("a Default but no Timeout"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string> id) {
                g.Emit(kApproved, id, true).Delay(absl::Seconds(-1));
              }),
              HasSubstr("a delay of -1s is out of range"));
  EXPECT_THAT(
      MistakeOf([](Graph& g, Value<std::string>) { g.Map(std::vector<Order>(), kShip).First(0); }),
      HasSubstr("First(0); a map is done with one item at the least"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string>) {
                g.Map(std::vector<Order>(), kShip).TolerateFailures(-1);
              }),
              HasSubstr("TolerateFailures(-1); it is 0 or more"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string>) {
                g.Map(std::vector<Order>(), kShip).TolerateFailureShare(5);
              }),
              HasSubstr("TolerateFailureShare(5); it is a share from 0 to 1"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string> id) { g.Join(id, id).First(3); }),
              HasSubstr("First(3) of 2 inputs"));
  EXPECT_THAT(
      MistakeOf([](Graph& g, Value<std::string> id) { g.Join(id, id).TolerateFailures(-2); }),
      HasSubstr("TolerateFailures(-2)"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string> id) {
                auto name = g.Call(kName);
                g.Join(id, id).First(1).After(name);
              }),
              HasSubstr("does not go with After"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string> id) {
                g.Child(kPart, 1).WorkflowId(id).OnUndo(kCancel);
              }),
              HasSubstr("OnUndo does not go with a WorkflowId that is a value"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string>) {
                auto child = g.Child(kPart, 1);
                child.WorkflowId(g.Call(kName));
              }),
              HasSubstr("its workflow id comes from a step written after it"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string> id) {
                auto child = g.Child(kPart, 1);
                g.Block([&] { child.WorkflowId(id); });
              }),
              HasSubstr("WorkflowId() is given inside another body"));
  EXPECT_THAT(
      MistakeOf([](Graph& g, Value<std::string>) { g.Call(kShip, Order()).LimitKey("customer"); }),
      HasSubstr("LimitKey(\"customer\"); it is a JSON pointer"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string>) {
                g.Call(kShip, Order()).LimitKey(&Order::unlisted);
              }),
              HasSubstr("not listed in its type's FLUX_STRUCT"));
  EXPECT_THAT(MistakeOf([](Graph& g, Value<std::string>) { g.Call(kName).LimitKey("/a"); }),
              HasSubstr("LimitKey() of a task without parameters"));
}

TEST(Continue, TracesALambdaThatLooksAround) {
  const std::vector<std::string> customers = {"a", "b"};
  const Continuation<int64_t> continuation = Continue<int64_t>(
      [&](Graph& g, Value<Order> order) {
        std::vector<Value<int64_t>> shipped;
        for (const std::string& customer : customers) {
          shipped.push_back(g.Call(kShip, order).Named("ship " + customer));
        }
        return g.Call(kSum, g.Join(shipped));
      },
      Order{.customer = "c", .amount = 5});
  ASSERT_TRUE(continuation.status().ok()) << continuation.status();
  ExpectDefinition(continuation.fragment()->definition_bytes, R"pb(
    name: "continuation"
    format: 1
    parameter_types: "Order"
    result_type: "int64"
    scopes {
      parameters: 1
      steps {
        name: "ship a"
        inputs { parameter: 0 }
        task { task: "orders.ship" }
      }
      steps {
        name: "ship b"
        inputs { parameter: 0 }
        task { task: "orders.ship" }
      }
      steps {
        name: "join"
        inputs { step: 0 optional: true }
        inputs { step: 1 optional: true }
        join {}
      }
      steps {
        name: "sum"
        inputs { step: 2 }
        task { task: "sum" }
      }
      result { step: 3 }
    }
  )pb");
  ASSERT_EQ(continuation.fragment()->inputs.size(), 1u);
  EXPECT_EQ(continuation.fragment()->inputs[0].data, R"({"customer":"c","amount":5})");
}

TEST(Continue, TakesAWorkflowAGenericBodyOrNothing) {
  const Continuation<int64_t> workflow = Continue<int64_t>(kPart, 4);
  ASSERT_TRUE(workflow.status().ok()) << workflow.status();
  EXPECT_EQ(workflow.fragment()->definition_bytes, kPart.Trace()->definition_bytes);
  EXPECT_EQ(workflow.fragment()->inputs[0].data, "4");

  const auto generic = Continue<std::string>([](Graph&, auto text) { return text; }, "x");
  ASSERT_TRUE(generic.status().ok()) << generic.status();
  EXPECT_EQ(generic.fragment()->inputs[0].data, "\"x\"");

  EXPECT_TRUE(Continue<void>([](Graph& g) { g.Sleep(absl::Hours(1)); }).status().ok());
  EXPECT_TRUE(Continue<int64_t>([](Graph& g) { return g.Fail(kRejected, "no"); }).status().ok());
  EXPECT_TRUE(Continue<int64_t>([](Graph&) { return 5; }).status().ok());
  EXPECT_EQ(
      Continue<int64_t>([](Graph& g) { return g.Child(kPart, 1); }).fragment()->children.at(0).name,
      "part");
}

TEST(Continue, AMistakeInItIsTheTasksFailure) {
  TaskSet tasks;
  tasks.Register(kName, []() -> Outcome<std::string> {
    return Continue<std::string>([](Graph& g) { return g.Call(kName).Named(""); });
  });
  class Context : public TaskContext {
    uint32_t attempt() const override { return 1; }
    std::string workflow_id() const override { return ""; }
    std::string run_id() const override { return ""; }
    std::string step() const override { return ""; }
    std::string fencing_token() const override { return ""; }
    bool cancelled() const override { return false; }
    absl::Time deadline() const override { return absl::InfiniteFuture(); }
    void HeartbeatPayload(Payload) override {}
    Payload LastProgressPayload() const override { return {}; }
    void LabelText(std::string, std::string) override {}
    void StepLabelText(std::string, std::string) override {}
  } context;
  const internal::RawOutcome outcome = (*tasks.Find("name"))(context, {});
  ASSERT_EQ(outcome.kind, internal::RawOutcome::Kind::kFailure);
  EXPECT_EQ(outcome.failure.type, errors::kBadResult.name());
  EXPECT_TRUE(outcome.failure.non_retriable);
  EXPECT_THAT(outcome.failure.message, HasSubstr("a step name may not be empty"));
  const auto bad = Continue<std::string>([](Graph&, auto text) { return text; }, "\xFF");
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("argument 1 cannot be encoded"));
}

}  // namespace
}  // namespace flux
