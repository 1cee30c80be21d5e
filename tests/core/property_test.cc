// Random graphs under random commands: replay equals the live state at every step, snapshots
// continue as what they were taken of, effects equal what the state says, and once faults stop,
// everything ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(engine_() % n); }
  bool OneIn(uint32_t n) { return Below(n) == 0; }

 private:
  std::mt19937_64 engine_;  // its sequence is fixed by the standard
};

class GraphMaker {
 public:
  explicit GraphMaker(Dice& dice) : dice_(dice), builder_("random", 2) {
    FillScope(0, 0, 3 + dice_.Below(8));
  }

  std::shared_ptr<const Graph> Compile() const { return builder_.Compile(); }

 private:
  // Any earlier step or parameter of the scope, or a literal.
  v1::Input AnyInput(uint32_t scope) {
    const v1::Scope& at = builder_.definition().scopes(static_cast<int>(scope));
    v1::Input input;
    const uint32_t steps = static_cast<uint32_t>(at.steps_size());
    if (steps > 0 && !dice_.OneIn(4)) {
      input = FromStep(dice_.Below(steps));
    } else if (at.parameters() > 0 && !dice_.OneIn(4)) {
      input = FromParameter(dice_.Below(at.parameters()));
    } else {
      static constexpr const char* kLiterals[] = {"1", "true", "[1,2,3]", "{\"a\":[4,5]}", "[]"};
      input = Literal(kLiterals[dice_.Below(5)]);
    }
    if (dice_.OneIn(40)) input.set_pointer("/a");
    if (dice_.OneIn(4)) input.set_optional(true);
    return input;
  }

  std::vector<v1::Input> Inputs(uint32_t scope, uint32_t at_least) {
    std::vector<v1::Input> inputs;
    const uint32_t count = at_least + dice_.Below(3);
    for (uint32_t i = 0; i < count; ++i) inputs.push_back(AnyInput(scope));
    return inputs;
  }

  uint32_t Body(uint32_t parameters, uint32_t depth) {
    const uint32_t scope = builder_.Scope(parameters);
    FillScope(scope, depth + 1, dice_.Below(4));
    return scope;
  }

  void FillScope(uint32_t scope, uint32_t depth, uint32_t steps) {
    for (uint32_t i = 0; i < steps; ++i) AddStep(scope, depth);
    builder_.Result(scope, AnyInput(scope));
  }

  void AddStep(uint32_t scope, uint32_t depth) {
    const std::string name = absl::StrCat("s", names_++);
    uint32_t step = 0;
    // Bodies are made first: they add scopes, not steps of this one.
    std::vector<v1::Input> inputs = Inputs(scope, 1);
    const uint32_t given = static_cast<uint32_t>(inputs.size());
    switch (depth >= 3 ? dice_.Below(6) : dice_.Below(14)) {
      default:
      case 0:
      case 1:
      case 2: {
        step = builder_.Task(scope, name, Inputs(scope, 0));
        v1::TaskStep* task = builder_.step(scope, step).mutable_task();
        task->mutable_retry()->set_max_attempts(2 + dice_.Below(3));
        if (dice_.OneIn(12)) {
          task->mutable_timeouts()->set_schedule_to_close_ms(1 + dice_.Below(4000));
        }
        if (dice_.OneIn(10)) builder_.step(scope, step).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
        break;
      }
      case 3:
        step = builder_.Sleep(scope, name, dice_.Below(3000));
        break;
      case 4:
        step = builder_.Join(scope, name, std::move(inputs));
        break;
      case 5:
        step = dice_.OneIn(8) ? builder_.Fail(scope, name, "mine", std::move(inputs))
                              : builder_.Skip(scope, name, std::move(inputs));
        break;
      case 6:
      case 7:
      case 8: {
        if (!dice_.OneIn(6)) inputs[0] = Literal("[10,20,30,40]");
        const uint32_t body = Body(given, depth);
        step = builder_.Map(scope, name, body, std::move(inputs), 1 + dice_.Below(3));
        break;
      }
      case 9:
      case 10: {
        const uint32_t body = Body(given, depth);
        std::optional<v1::Input> done;
        if (dice_.OneIn(4)) done = FromParameter(0);
        step = builder_.Loop(scope, name, body, std::move(inputs), 1 + dice_.Below(3), done);
        break;
      }
      case 11: {
        const uint32_t body = Body(given, depth);
        step = builder_.Block(scope, name, body, std::move(inputs));
        break;
      }
      case 12:
      case 13: {
        if (!dice_.OneIn(4)) inputs[0] = Literal(dice_.OneIn(2) ? "true" : "1");
        const uint32_t yes = Body(given - 1, depth);
        const uint32_t no = Body(given - 1, depth);
        std::optional<uint32_t> otherwise;
        if (!dice_.OneIn(3)) otherwise = no;
        if (otherwise.has_value()) {
          step = builder_.Switch(scope, name, std::move(inputs), {{"true", yes}}, otherwise);
        } else {
          step = builder_.Switch(scope, name, std::move(inputs), {{"true", yes}, {"1", no}});
        }
        break;
      }
    }
    if (step > 0 && dice_.OneIn(4)) builder_.After(scope, step, dice_.Below(step));
    if (depth < 3 && dice_.OneIn(3)) {
      std::vector<v1::Input> captures;
      // Captures come before the step; AnyInput may now name the step itself, so draw again until
      // it does not.
      for (uint32_t i = dice_.Below(3); i > 0; --i) {
        v1::Input capture = AnyInput(scope);
        while (capture.source_case() == v1::Input::kStep && capture.step() >= step) {
          capture = AnyInput(scope);
        }
        captures.push_back(std::move(capture));
      }
      const uint32_t body = Body(static_cast<uint32_t>(captures.size()) + 1, depth);
      std::vector<std::string> types;
      if (dice_.OneIn(2)) types = {"mine"};
      builder_.Catch(scope, step, types, body, std::move(captures));
    }
  }

  Dice& dice_;
  DefinitionBuilder builder_;
  uint32_t names_ = 0;
};

v1::Payload AnyValue(Dice& dice) {
  switch (dice.Below(9)) {
    case 0:
      return Json("true");
    case 1:
      return Json("[1,[2,3],{\"a\":1}]");
    case 2:
      return ListPayload({Json("1"), Json("[5,6]"), ListPayload({Json("7")})});
    case 3:
      return Json("{\"a\":[1,2]}");
    case 4: {
      v1::Payload payload;
      payload.set_data("opaque");
      payload.set_encoding(v1::ENCODING_PROTOBUF);
      payload.set_content_type("a.Message");
      (*payload.mutable_metadata())["k"] = "v";
      (*payload.mutable_metadata())["j"] = "w";
      return payload;
    }
    case 5:
      return dice.OneIn(8) ? Json("\"" + std::string(70'000, 'x') + "\"") : Json("3");
    case 6: {
      v1::Payload none;
      none.set_encoding(v1::ENCODING_NONE);
      return none;
    }
    case 7:
      return Json("[]");
    default:
      return Json(absl::StrCat(dice.Below(100)));
  }
}

void OneCommand(Driver& run, Dice& dice) {
  std::vector<std::string> ready = run.Ready();
  if (ready.empty() || dice.OneIn(6)) {
    run.Advance(dice.Below(2000));
    return;
  }
  const std::string path = ready[dice.Below(static_cast<uint32_t>(ready.size()))];
  switch (dice.Below(12)) {
    case 0:
      EXPECT_EQ(run.FailTask(path, dice.OneIn(2) ? "mine" : "other", dice.OneIn(6)),
                Verdict::kAccepted);
      return;
    case 1:
      EXPECT_EQ(run.End(path, static_cast<AttemptEnd>(dice.Below(4))), Verdict::kAccepted);
      return;
    case 2:
      EXPECT_EQ(run.Redeliver(path), Verdict::kAccepted);
      return;
    case 3:
      EXPECT_EQ(run.SkipResult(path), Verdict::kAccepted);
      return;
    case 4: {
      // An old delivery, one never given, a wrong generation, a step that is not there.
      ReportResult command;
      command.result = run.ResultFor(path);
      command.result.mutable_value();
      v1::TaskToken* token = command.result.mutable_token();
      const uint32_t kind = dice.Below(4);
      if (kind == 0) token->set_delivery(token->delivery() - 1);
      if (kind == 1) token->set_delivery(token->delivery() + 1);
      if (kind == 2) token->set_generation(token->generation() + 1);
      if (kind == 3) token->set_frame(token->frame() + 1'000'000);
      const uint64_t before = run.live.ordinal();
      EXPECT_EQ(*run.Do(std::move(command)), Verdict::kStale);
      EXPECT_EQ(run.live.ordinal(), before);
      return;
    }
    default: {
      // Twice: the second time is a duplicate, or stale once its frame is gone.
      ReportResult again;
      again.result = run.ResultFor(path);
      *again.result.mutable_value() = Json("0");
      EXPECT_EQ(run.Complete(path, AnyValue(dice)), Verdict::kAccepted);
      if (dice.OneIn(4)) {
        const uint64_t before = run.live.ordinal();
        EXPECT_NE(*run.Do(std::move(again)), Verdict::kAccepted);
        EXPECT_EQ(run.live.ordinal(), before);
      }
    }
  }
}

bool HasParked(const Driver& run) {
  for (const auto& [number, frame] : run.live.state().frames) {
    for (const internal::StepState& step : frame->steps) {
      if (step.phase == internal::Phase::kParked) return true;
    }
  }
  return false;
}

void OneSeed(uint64_t seed, std::map<v1::ExecutionStatus, int>* ends) {
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  Dice dice(seed);
  GraphMaker maker(dice);
  std::shared_ptr<const Graph> graph = maker.Compile();
  ASSERT_NE(graph, nullptr);
  v1::ExecutionStarted probe;
  std::vector<v1::Payload> inputs = {Json("[1,2,{\"a\":3}]"), Json("{\"a\":[true]}")};
  // A root map over the second input, which is no list, cannot start: such graphs get a list there
  // too.
  probe.set_run_id(std::string(16, 'r'));
  for (const v1::Payload& input : inputs) *probe.add_inputs() = input;
  if (!DecideStart(*graph, probe, 1).ok()) inputs[1] = inputs[0];
  probe.clear_inputs();
  for (const v1::Payload& input : inputs) *probe.add_inputs() = input;
  if (!DecideStart(*graph, probe, 1).ok()) return;

  Driver run(graph, inputs, 5'000, seed);
  const uint32_t faulty_commands = dice.Below(60);
  for (uint32_t i = 0; i < faulty_commands && !run.live.closed(); ++i) {
    OneCommand(run, dice);
    if (::testing::Test::HasFatalFailure()) return;
    if (dice.OneIn(5)) run.Reload();
  }
  if (dice.OneIn(10) && !run.live.closed()) {
    ASSERT_TRUE(run.Do(Cancel{"enough", "tester"}).ok());
    ASSERT_EQ(run.status(), v1::EXECUTION_STATUS_CANCELLED);
  }
  // No more faults: everything that can end does.
  for (int i = 0; i < 5'000 && !run.live.closed(); ++i) {
    const std::vector<std::string> ready = run.Ready();
    if (!ready.empty()) {
      ASSERT_EQ(run.Complete(ready[0], "1"), Verdict::kAccepted);
    } else if (NextTimerMs(run.live).has_value()) {
      run.Advance(std::max<int64_t>(*NextTimerMs(run.live) - run.now_ms, 0));
    } else {
      break;
    }
    if (::testing::Test::HasFatalFailure()) return;
  }
  if (!run.live.closed()) {
    ASSERT_TRUE(HasParked(run)) << "stuck: no task, no timer, not closed";
    ASSERT_TRUE(run.Do(Terminate{"parked", "tester"}).ok());
  }
  EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
  EXPECT_TRUE(ReadyTasks(run.live).empty());
  v1::DescribeExecutionResponse response;
  DescribeExecution(run.live, 3, true, nullptr, &response);
  ++(*ends)[run.status()];
}

TEST(CoreProperty, ReplayAndSnapshotsEqualTheLiveExecution) {
  uint64_t first = 1;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  uint64_t count = 300;
#else
  uint64_t count = 1'500;
#endif
  if (const char* seeds = std::getenv("FLUX_CORE_SEEDS")) count = std::strtoull(seeds, nullptr, 10);
  if (const char* seed = std::getenv("FLUX_CORE_SEED")) {
    first = std::strtoull(seed, nullptr, 10);
    count = 1;
  }
  std::map<v1::ExecutionStatus, int> ends;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    OneSeed(seed, &ends);
    if (HasFailure()) {
      FAIL() << "seed " << seed << " failed; replay it with FLUX_CORE_SEED=" << seed;
    }
  }
  for (const auto& [status, number] : ends) {
    RecordProperty(v1::ExecutionStatus_Name(status), number);
  }
  if (count < 100) return;
  // The generator reaches every way to end.
  for (const auto status :
       {v1::EXECUTION_STATUS_COMPLETED, v1::EXECUTION_STATUS_FAILED, v1::EXECUTION_STATUS_SKIPPED,
        v1::EXECUTION_STATUS_CANCELLED, v1::EXECUTION_STATUS_TERMINATED}) {
    EXPECT_GT(ends[status], 0) << v1::ExecutionStatus_Name(status);
  }
}

}  // namespace
}  // namespace flux::engine::testing
