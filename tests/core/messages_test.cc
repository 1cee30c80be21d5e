// Messages between executions, and the steps that send them: every pair of the tables of outbox.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

const auto kAccepted = Verdict::kAccepted;
const auto kEmit = v1::OUTBOX_KIND_EMIT;
const auto kStart = v1::OUTBOX_KIND_START_CHILD;
const auto kCancelChild = v1::OUTBOX_KIND_CANCEL_CHILD;
const auto kTerminateChild = v1::OUTBOX_KIND_TERMINATE_CHILD;
const auto kNotify = v1::OUTBOX_KIND_NOTIFY_PARENT;

// Emits input 0 to the execution that input 1 names; "next" comes after.
DefinitionBuilder OneEmit(v1::Input target = FromParameter(1)) {
  DefinitionBuilder b("emits", 2);
  const uint32_t e = b.Emit(0, "e", "go", FromParameter(0), std::move(target));
  const uint32_t next = b.Task(0, "next");
  b.After(0, next, e);
  b.Result(0, FromStep(next));
  return b;
}

// Step "c" runs workflow "sub" on input 0; "next" reads its value.
DefinitionBuilder OneChild(const std::function<void(v1::ChildStep&)>& set = nullptr) {
  DefinitionBuilder b("parent", 1);
  const uint32_t c = b.Child(0, "c", "sub", {FromParameter(0)});
  if (set) set(*b.step(0, c).mutable_child());
  b.Result(0, FromStep(b.Task(0, "next", {FromStep(c)})));
  return b;
}

v1::ParentRef SomeParent() {
  v1::ParentRef parent;
  parent.set_namespace_("default");
  parent.set_workflow_id("mother");
  parent.set_run_id(std::string(16, 'm'));
  parent.mutable_ref()->set_frame(3);
  parent.mutable_ref()->set_step(4);
  parent.set_generation(5);
  parent.set_outbox(6);
  return parent;
}

// ---- emit ----

TEST(Emit, SendsItsEventAndCompletesOnceItIsTaken) {
  Driver run(OneEmit().Compile(), {Json("{\"a\":1}"), Json("\"other\"")});
  EXPECT_TRUE(run.effects.outbox);
  EXPECT_TRUE(HasOutbox(run.live));
  EXPECT_EQ(run.ReasonOf("e"), "sends event go");
  run.Reload();
  const OutboxMessage message = run.Pending(kEmit);
  EXPECT_EQ(message.kind, kEmit);
  EXPECT_EQ(message.target.namespace_(), "default");
  EXPECT_EQ(message.target.workflow_id(), "other");
  EXPECT_EQ(message.target.run_id(), "");
  EXPECT_EQ(message.event.execution().workflow_id(), "other");
  EXPECT_EQ(message.event.event(), "go");
  EXPECT_EQ(message.event.event_id(),
            absl::StrCat("flux:", run.live.run().Text(), ":", message.number));
  EXPECT_EQ(message.event.payload().data(), "{\"a\":1}");
  EXPECT_EQ(message.event.identity(), "run-1");
  EXPECT_EQ(message.event.deliver_time_ms(), 0);
  EXPECT_THAT(run.Ready(), IsEmpty());
  EXPECT_EQ(run.Settle(message.number), kAccepted);
  EXPECT_FALSE(HasOutbox(run.live));
  EXPECT_THAT(run.Ready(), ElementsAre("next"));
  EXPECT_EQ(run.Settle(message.number), Verdict::kStale);
  EXPECT_EQ(BuildOutboxMessage(run.live, message.number).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Emit, MayBeDelayed) {
  DefinitionBuilder b = OneEmit();
  b.step(0, 0).mutable_emit()->set_delay_ms(1'500);
  Driver run(b.Compile(), {Json("1"), Json("\"other\"")});
  const int64_t begun = run.now_ms;
  run.Advance(700);
  EXPECT_EQ(run.Pending(kEmit).event.deliver_time_ms(), begun + 1'500);
}

TEST(Emit, FailsAsItsMessageDoes) {
  DefinitionBuilder b = OneEmit();
  const uint32_t handler = b.Scope(1);
  b.Result(handler, FromParameter(0));
  b.Catch(0, 0, {"flux.not_found"}, handler);
  Driver run(b.Compile(), {Json("1"), Json("\"other\"")});
  EXPECT_EQ(run.Settle(run.Pending(kEmit).number, "flux.not_found"), kAccepted);
  EXPECT_THAT(run.Ready(), ElementsAre("next"));
  Driver uncaught(b.Compile(), {Json("1"), Json("\"other\"")});
  EXPECT_EQ(uncaught.Settle(uncaught.Pending(kEmit).number, "flux.closed"), kAccepted);
  EXPECT_EQ(uncaught.ResultText(), "flux.closed: it was refused");
}

struct BadTarget {
  const char* name;
  v1::Input target;
  const char* why;
};

TEST(Emit, NeedsAWorkflowIdItCanRead) {
  const BadTarget kBad[] = {
      {"Number", Literal("7"), "expected a JSON string"},
      {"Empty", Literal("\"\""), "it is empty"},
      {"Nowhere", Literal("{}", "/id"), "leads nowhere"},
  };
  for (const BadTarget& c : kBad) {
    SCOPED_TRACE(c.name);
    Driver run(OneEmit(c.target).Compile(), {Json("1"), Json("\"other\"")});
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_THAT(run.ResultText(),
                StartsWith("flux.bad_projection: the workflow id to address cannot be read: "));
    EXPECT_THAT(run.ResultText(), HasSubstr(c.why));
    EXPECT_FALSE(HasOutbox(run.live));
  }
  DefinitionBuilder b("skips");
  const uint32_t s = b.Skip(0, "s");
  b.Result(0, FromStep(b.Emit(0, "e", "go", FromStep(s), Literal("\"x\""))));
  Driver run(b.Compile());
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_SKIPPED);
}

TEST(Emit, APayloadThatLeadsNowhereIsToldWhenItIsBuilt) {
  DefinitionBuilder b = OneEmit();
  b.step(0, 0).mutable_inputs(0)->set_pointer("/gone");
  Driver run(b.Compile(), {Json("{}"), Json("\"other\"")});
  const absl::Status status = BuildOutboxMessage(run.live, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/gone leads nowhere"));
}

// ---- children ----

TEST(Child, AwaitedCompletesWithItsResult) {
  Driver run(OneChild().Compile(), {Json("[1]")});
  run.Reload();
  const OutboxMessage start = run.Pending(kStart);
  EXPECT_TRUE(start.awaited);
  EXPECT_EQ(start.start.namespace_(), "default");
  EXPECT_EQ(start.start.workflow(), "sub");
  EXPECT_EQ(start.start.workflow_id(), "run-1/c");
  EXPECT_EQ(start.start.request_id(),
            absl::StrCat("flux:", run.live.run().Text(), ":", start.number));
  ASSERT_EQ(start.start.inputs_size(), 1);
  EXPECT_EQ(start.start.inputs(0).data(), "[1]");
  EXPECT_EQ(start.start.identity(), "run-1");
  EXPECT_EQ(start.parent.workflow_id(), "run-1");
  EXPECT_EQ(start.parent.run_id(), run.live.run().Bytes());
  EXPECT_EQ(start.parent.ref().step(), 0u);
  EXPECT_EQ(start.parent.outbox(), start.number);
  EXPECT_EQ(run.ReasonOf("c"), "starts child run-1/c");
  EXPECT_EQ(run.ChildStarted(start.number), kAccepted);
  EXPECT_THAT(run.ReasonOf("c"), StartsWith("waits for child run-1/c (run 63636363"));
  EXPECT_FALSE(HasOutbox(run.live));
  run.Reload();
  EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_COMPLETED, "[2]"), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "[2]");
  EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_COMPLETED, "[3]"), Verdict::kStale);
  EXPECT_THAT(run.StoryTypes(), Contains("child.closed c"));
  run.Complete("next", "1");
  EXPECT_FALSE(HasOutbox(run.live)) << "nothing is left to be stopped";
}

TEST(Child, MayCloseBeforeItsStartIsSettled) {
  Driver run(OneChild().Compile(), {Json("1")});
  const uint64_t start = run.Pending(kStart).number;
  const std::string large(kBlobBytesMin + 1, '7');
  EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_COMPLETED, large), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), large);
  EXPECT_FALSE(HasOutbox(run.live));
  EXPECT_EQ(run.ChildStarted(start), Verdict::kStale);
  run.Reload();
  EXPECT_EQ(run.blobs.size(), 1u);
}

struct ChildEnd {
  const char* name;
  v1::ExecutionStatus status;
  const char* failure;
  v1::ExecutionStatus then;
  const char* result;
};

TEST(Child, EndsAsItsExecutionDid) {
  const ChildEnd kEnds[] = {
      {"Skipped", v1::EXECUTION_STATUS_SKIPPED, "", v1::EXECUTION_STATUS_SKIPPED, ""},
      {"Failed", v1::EXECUTION_STATUS_FAILED, "bad.page", v1::EXECUTION_STATUS_FAILED,
       "bad.page: child run-1/c: it went wrong there"},
      {"Cancelled", v1::EXECUTION_STATUS_CANCELLED, "flux.cancelled", v1::EXECUTION_STATUS_FAILED,
       "flux.cancelled: child run-1/c: it went wrong there"},
      {"Terminated", v1::EXECUTION_STATUS_TERMINATED, "flux.terminated",
       v1::EXECUTION_STATUS_FAILED, "flux.terminated: child run-1/c: it went wrong there"},
      {"NoReason", v1::EXECUTION_STATUS_FAILED, "", v1::EXECUTION_STATUS_FAILED,
       "flux.unknown: child run-1/c: it went wrong there"},
  };
  for (const ChildEnd& c : kEnds) {
    SCOPED_TRACE(c.name);
    Driver run(OneChild().Compile(), {Json("1")});
    run.ChildStarted(run.Pending(kStart).number);
    EXPECT_EQ(run.ChildClosed("c", c.status, c.failure), kAccepted);
    EXPECT_EQ(run.status(), c.then);
    EXPECT_EQ(run.ResultText(), c.result);
    EXPECT_FALSE(HasOutbox(run.live)) << "what has closed is not stopped";
  }
}

TEST(Child, AFailureIsCaughtByItsType) {
  DefinitionBuilder b = OneChild();
  const uint32_t handler = b.Scope(1);
  b.Result(handler, FromParameter(0, "/type"));
  b.Catch(0, 0, {"bad.page"}, handler);
  Driver run(b.Compile(), {Json("1")});
  run.ChildStarted(run.Pending(kStart).number);
  EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_FAILED, "bad.page"), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "\"bad.page\"");
}

TEST(Child, FailsIfItCannotBeStarted) {
  Driver run(OneChild().Compile(), {Json("1")});
  EXPECT_EQ(run.Settle(run.Pending(kStart).number, "flux.already_exists"), kAccepted);
  EXPECT_EQ(run.ResultText(), "flux.already_exists: it was refused");
  EXPECT_FALSE(HasOutbox(run.live));
}

TEST(Child, DetachedCompletesOnceItIsStarted) {
  Driver run(OneChild([](auto& child) { child.set_detached(true); }).Compile(), {Json("1")});
  EXPECT_EQ(run.ReasonOf("c"), "starts workflow sub");
  const OutboxMessage start = run.Pending(kStart);
  EXPECT_FALSE(start.awaited);
  EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_COMPLETED, "1"), Verdict::kStale);
  EXPECT_EQ(run.ChildStarted(start.number), kAccepted);
  EXPECT_EQ(InputOf(run, "next"),
            absl::StrCat("{\"workflow_id\":\"run-1/c\",\"run_id\":\"",
                         RunId::FromBytes(std::string(16, 'c'))->Text(), "\"}"));
  EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
  EXPECT_FALSE(HasOutbox(run.live)) << "it is not its parent's to stop";
}

TEST(Child, ReportsThatAreNotOfThisChildAreStale) {
  struct Case {
    const char* name;
    std::function<void(ReportChild&)> change;
    Verdict verdict;
  };
  const Case kCases[] = {
      {"Current", [](auto&) {}, kAccepted},
      {"OtherRun", [](auto& c) { c.run_id = std::string(16, 'x'); }, Verdict::kStale},
      {"OtherGeneration", [](auto& c) { c.generation = 1; }, Verdict::kStale},
      {"OtherStep", [](auto& c) { c.ref.step = 1; }, Verdict::kStale},
      {"UnknownStep", [](auto& c) { c.ref.step = 9; }, Verdict::kStale},
      {"UnknownFrame", [](auto& c) { c.ref.frame = 9; }, Verdict::kStale},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Driver run(OneChild().Compile(), {Json("1")});
    run.ChildStarted(run.Pending(kStart).number);
    ReportChild report;
    report.run_id = std::string(16, 'c');
    report.status = v1::EXECUTION_STATUS_COMPLETED;
    report.result = Json("1");
    c.change(report);
    EXPECT_EQ(*run.Do(report), c.verdict);
  }
}

// ---- ids ----

TEST(ChildId, IsExplicitOrAnInputOrDerived) {
  struct Case {
    const char* name;
    std::function<void(v1::ChildStep&)> set;
    const char* id;
    int inputs;
  };
  const Case kCases[] = {
      {"Derived", [](auto&) {}, "run-1/c", 1},
      {"Explicit", [](auto& child) { child.set_workflow_id("mine"); }, "mine", 1},
      {"OfAnInput", [](auto& child) { child.set_id_input(true); }, "given", 0},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Driver run(OneChild(c.set).Compile(), {Json("\"given\"")});
    EXPECT_EQ(run.Pending(kStart).start.workflow_id(), c.id);
    EXPECT_EQ(run.Pending(kStart).start.inputs_size(), c.inputs);
  }
  Driver bad(OneChild([](auto& child) { child.set_id_input(true); }).Compile(), {Json("7")});
  EXPECT_THAT(bad.ResultText(), StartsWith("flux.bad_projection: the workflow id to address"));
}

TEST(ChildId, ALongOneIsCutAndToldApartByAHash) {
  std::vector<std::string> ids;
  for (const char last : {'a', 'b'}) {
    DefinitionBuilder b("long");
    const uint32_t c = b.Child(0, std::string(250, 'n') + last, "sub");
    b.Result(0, FromStep(c));
    Driver run(b.Compile());
    ids.push_back(run.Pending(kStart).start.workflow_id());
    EXPECT_LE(ids.back().size(), 200u);
    EXPECT_THAT(ids.back(), StartsWith("run-1/nnnn"));
  }
  EXPECT_NE(ids[0], ids[1]);
}

TEST(ChildId, ComesOnceInARunWhateverComesAgain) {
  DefinitionBuilder b("again");
  const uint32_t turn = b.Scope(1);
  b.Result(turn, FromStep(b.Child(turn, "c", "sub", {FromParameter(0)})));
  b.Result(0, FromStep(b.Loop(0, "l", turn, {Literal("0")}, 2)));
  Driver run(b.Compile());
  std::vector<std::string> ids = {run.Pending(kStart).start.workflow_id()};
  EXPECT_EQ(ids[0], "run-1/l[0].c");
  // The loop begins again, with the same paths.
  EXPECT_EQ(run.Rewind("l"), "");
  ids.push_back(run.Pending(kStart).start.workflow_id());
  // The step alone.
  EXPECT_EQ(run.Rewind("l[0].c"), "");
  ids.push_back(run.Pending(kStart).start.workflow_id());
  EXPECT_EQ(run.Retry("l[0].c"), "");
  ids.push_back(run.Pending(kStart).start.workflow_id());
  for (size_t i = 1; i < ids.size(); ++i) {
    EXPECT_THAT(ids[i], StartsWith("run-1/l[0].c~"));
    for (size_t k = 0; k < i; ++k) EXPECT_NE(ids[i], ids[k]);
  }
}

TEST(ChildId, ComesOnceInAChainOfFragmentsWithTheSameSteps) {
  DefinitionBuilder b("chain");
  b.Result(0, FromStep(b.Task(0, "t")));
  DefinitionBuilder fragment("more");
  fragment.Child(0, "c", "sub");
  fragment.Task(0, "t2");
  fragment.Result(0, FromStep(1));
  Driver run(b.Compile());
  EXPECT_EQ(run.Continue("t", fragment.definition()), kAccepted);
  const std::string first = run.Pending(kStart).start.workflow_id();
  run.ChildStarted(run.Pending(kStart).number);
  EXPECT_EQ(run.ChildClosed("t.c", v1::EXECUTION_STATUS_COMPLETED, "1"), kAccepted);
  EXPECT_EQ(run.Continue("t.t2", fragment.definition()), kAccepted);
  EXPECT_NE(run.Pending(kStart).start.workflow_id(), first);
}

// ---- giving children up ----

struct Policy {
  const char* name;
  v1::ParentClosePolicy policy;
  std::vector<std::string> outbox;  // once it was given up
};

const Policy kPolicies[] = {
    {"Default", v1::PARENT_CLOSE_POLICY_UNSPECIFIED, {"CANCEL_CHILD"}},
    {"Cancel", v1::PARENT_CLOSE_POLICY_CANCEL, {"CANCEL_CHILD"}},
    {"Terminate", v1::PARENT_CLOSE_POLICY_TERMINATE, {"TERMINATE_CHILD"}},
    {"Abandon", v1::PARENT_CLOSE_POLICY_ABANDON, {}},
};

TEST(GivenUpChild, IsStoppedAsItsPolicySaysHoweverItsParentEnds) {
  struct End {
    const char* name;
    std::function<void(Driver&)> end;
  };
  const End kEnds[] = {
      {"Cancelled",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
       }},
      {"Terminated",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Terminate{"", "ann"}), "");
       }},
      {"Failed", [](Driver& run) { run.FailTask("beside", "bad", true); }},
      {"Skipped by hand", [](Driver& run) { EXPECT_EQ(run.SkipStep("c"), ""); }},
      {"Set by hand", [](Driver& run) { EXPECT_EQ(run.Resolve("c", "1"), ""); }},
  };
  for (const Policy& p : kPolicies) {
    for (const End& end : kEnds) {
      SCOPED_TRACE(absl::StrCat(p.name, ", ", end.name));
      DefinitionBuilder b = OneChild([&](auto& child) { child.set_parent_close(p.policy); });
      b.Task(0, "beside");
      Driver run(b.Compile(), {Json("1")});
      run.ChildStarted(run.Pending(kStart).number);
      end.end(run);
      EXPECT_EQ(run.Outbox(), p.outbox);
      run.Reload();
      EXPECT_EQ(run.Outbox(), p.outbox);
      if (p.outbox.empty()) continue;
      const OutboxMessage message = run.Pending(
          p.policy == v1::PARENT_CLOSE_POLICY_TERMINATE ? kTerminateChild : kCancelChild);
      EXPECT_EQ(message.target.workflow_id(), "run-1/c");
      EXPECT_EQ(message.target.run_id(), RunId::FromBytes(std::string(16, 'c'))->Text());
      EXPECT_EQ(message.parent.run_id(), run.live.run().Bytes());
      EXPECT_EQ(message.parent.generation(), 0u);
      EXPECT_EQ(run.Settle(message.number), kAccepted) << "after its parent closed, too";
      EXPECT_FALSE(HasOutbox(run.live));
    }
  }
}

TEST(GivenUpChild, IsNotStartedAnyMoreOrStoppedIfItWas) {
  Driver run(OneChild().Compile(), {Json("1")});
  const uint64_t start = run.Pending(kStart).number;
  EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
  EXPECT_THAT(run.Outbox(), ElementsAre("CANCEL_CHILD"));
  EXPECT_EQ(run.Pending(kCancelChild).target.run_id(), "");
  EXPECT_EQ(run.ChildStarted(start), Verdict::kStale);
}

TEST(GivenUpChild, OfARewoundStepCarriesTheOldGeneration) {
  Driver run(OneChild().Compile(), {Json("1")});
  run.ChildStarted(run.Pending(kStart).number);
  EXPECT_EQ(run.Rewind("c"), "");
  EXPECT_THAT(run.Outbox(), ElementsAre("CANCEL_CHILD", "START_CHILD"));
  EXPECT_EQ(run.Pending(kCancelChild).parent.generation(), 0u);
  EXPECT_EQ(run.Pending(kStart).parent.generation(), 1u);
  ReportChild report;
  report.run_id = std::string(16, 'c');
  report.status = v1::EXECUTION_STATUS_CANCELLED;
  EXPECT_EQ(*run.Do(report), Verdict::kStale);
  EXPECT_EQ(run.StateOf("c"), v1::STEP_STATE_WAITING);
}

TEST(GivenUpChild, OfADroppedBodyIsStopped) {
  DefinitionBuilder b("early", 1);
  const uint32_t body = b.Scope(1);
  b.Result(body, FromStep(b.Child(body, "c", "sub", {FromParameter(0)})));
  b.Block(0, "block", body, {FromParameter(0)});
  b.Task(0, "fast");
  b.Result(0, FromStep(b.Early(0, "j", {FromStep(0), FromStep(1)}, 1)));
  Driver run(b.Compile(), {Json("1")});
  run.ChildStarted(run.Pending(kStart).number);
  run.Complete("fast", "9");
  EXPECT_EQ(run.ResultText(), "[9]");
  EXPECT_EQ(run.StateOf("block"), v1::STEP_STATE_CANCELLED);
  EXPECT_THAT(run.Outbox(), ElementsAre("CANCEL_CHILD"));
}

TEST(GivenUpMessage, OfAStepThatIsGoneCannotBeBuilt) {
  // An emit in a body that is dropped, and one that was rewound.
  DefinitionBuilder b("early", 1);
  const uint32_t body = b.Scope(1);
  const uint32_t e = b.Emit(body, "e", "go", FromParameter(0), Literal("\"other\""));
  b.Result(body, FromStep(e));
  b.Block(0, "block", body, {FromParameter(0)});
  b.Task(0, "fast");
  b.Result(0, FromStep(b.Early(0, "j", {FromStep(0), FromStep(1)}, 1)));
  {
    Driver run(b.Compile(), {Json("1")});
    run.Complete("fast", "9");
    EXPECT_EQ(BuildOutboxMessage(run.live, 1).status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(run.Settle(1, "flux.gone"), kAccepted);
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  }
  Driver run(b.Compile(), {Json("1")});
  EXPECT_EQ(run.Rewind("block.e"), "");
  EXPECT_THAT(run.Outbox(), ElementsAre("EMIT", "EMIT"));
  EXPECT_EQ(BuildOutboxMessage(run.live, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(BuildOutboxMessage(run.live, 2).ok());
  EXPECT_EQ(run.Settle(1, "flux.gone"), kAccepted);
  EXPECT_EQ(run.StateOf("block.e"), v1::STEP_STATE_WAITING);
  EXPECT_EQ(run.Settle(2), kAccepted);
  EXPECT_EQ(run.StateOf("block"), v1::STEP_STATE_COMPLETED);
}

// ---- telling the parent ----

TEST(NotifyParent, ReportsHowItEnded) {
  struct Case {
    const char* name;
    std::function<void(Driver&)> end;
    v1::ExecutionStatus status;
    const char* what;
  };
  const Case kCases[] = {
      {"Completed", [](Driver& run) { run.Complete("t", "5"); }, v1::EXECUTION_STATUS_COMPLETED,
       "5"},
      {"Skipped", [](Driver& run) { run.SkipResult("t"); }, v1::EXECUTION_STATUS_SKIPPED, ""},
      {"Failed", [](Driver& run) { run.FailTask("t", "bad", true); }, v1::EXECUTION_STATUS_FAILED,
       "bad"},
      {"Cancelled",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
       },
       v1::EXECUTION_STATUS_CANCELLED, "flux.cancelled"},
      {"Terminated",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Terminate{"", "ann"}), "");
       },
       v1::EXECUTION_STATUS_TERMINATED, "flux.terminated"},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    DefinitionBuilder b("sub");
    b.Result(0, FromStep(b.Task(0, "t")));
    Driver run(b.Compile(), {}, 1'000, 1,
               [](auto& started) { *started.mutable_parent() = SomeParent(); });
    c.end(run);
    run.Reload();
    EXPECT_TRUE(run.effects.outbox);
    const OutboxMessage message = run.Pending(kNotify);
    EXPECT_EQ(message.target.workflow_id(), "mother");
    EXPECT_EQ(message.target.run_id(), RunId::FromBytes(std::string(16, 'm'))->Text());
    EXPECT_EQ(message.report.ref, (StepKey{3, 4}));
    EXPECT_EQ(message.report.generation, 5u);
    EXPECT_EQ(message.report.run_id, run.live.run().Bytes());
    EXPECT_EQ(message.report.status, c.status);
    EXPECT_EQ(c.status == v1::EXECUTION_STATUS_COMPLETED ? message.report.result.data()
                                                         : message.report.failure.type(),
              c.what);
    EXPECT_EQ(run.Settle(message.number), kAccepted);
    EXPECT_FALSE(HasOutbox(run.live));
  }
}

TEST(NotifyParent, AReopenedOneSpeaksWhenItClosesAgain) {
  DefinitionBuilder b("sub");
  b.Result(0, FromStep(b.Task(0, "t")));
  const auto child = [](v1::ExecutionStarted& started) {
    *started.mutable_parent() = SomeParent();
  };
  Driver run(b.Compile(), {}, 1'000, 1, child);
  run.FailTask("t", "bad", true);
  EXPECT_THAT(run.Outbox(), ElementsAre("NOTIFY_PARENT"));
  const uint64_t first = run.Pending(kNotify).number;
  EXPECT_EQ(run.Retry("t"), "");
  EXPECT_FALSE(HasOutbox(run.live)) << "it is not over";
  run.Complete("t", "5");
  EXPECT_THAT(run.Outbox(), ElementsAre("NOTIFY_PARENT"));
  EXPECT_GT(run.Pending(kNotify).number, first);
  EXPECT_EQ(run.Pending(kNotify).report.status, v1::EXECUTION_STATUS_COMPLETED);
}

// ---- a closed execution that runs again ----

TEST(Reopened, SendsAgainWhatWasSettledMeanwhileAndWaitsForWhatWasNot) {
  DefinitionBuilder b = OneEmit();
  b.Task(0, "beside");
  for (const bool settled : {true, false}) {
    SCOPED_TRACE(settled);
    Driver run(b.Compile(), {Json("1"), Json("\"other\"")});
    run.FailTask("beside", "bad", true);
    EXPECT_THAT(run.Outbox(), ElementsAre("EMIT"));
    if (settled) {
      EXPECT_EQ(run.Settle(1), kAccepted);
    }
    EXPECT_EQ(run.Retry(), "");
    EXPECT_THAT(run.Outbox(), ElementsAre("EMIT"));
    EXPECT_EQ(run.Pending(kEmit).number, settled ? 2u : 1u);
    run.Reload();
    run.Settle(run.Pending(kEmit).number);
    EXPECT_EQ(run.StateOf("e"), v1::STEP_STATE_COMPLETED);
  }
}

TEST(Reopened, StartsItsChildrenAnew) {
  for (const Policy& p : kPolicies) {
    SCOPED_TRACE(p.name);
    DefinitionBuilder b = OneChild([&](auto& child) { child.set_parent_close(p.policy); });
    b.Task(0, "beside");
    Driver run(b.Compile(), {Json("1")});
    run.ChildStarted(run.Pending(kStart).number);
    const std::string first = run.live.state().FindStep({0, 0})->extra->child->workflow_id;
    run.FailTask("beside", "bad", true);
    EXPECT_EQ(run.Retry(), "");
    EXPECT_EQ(run.ReasonOf("c"),
              absl::StrCat("starts child ", first, "~", run.Pending(kStart).number));
    run.ChildStarted(run.Pending(kStart).number, 'd');
    EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_COMPLETED, "1", 'c'), Verdict::kStale);
    EXPECT_EQ(run.ChildClosed("c", v1::EXECUTION_STATUS_COMPLETED, "1", 'd'), kAccepted);
    EXPECT_EQ(InputOf(run, "next"), "1");
  }
}

}  // namespace
}  // namespace flux::engine::testing
