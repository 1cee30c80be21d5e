#include "tests/sim/graphs.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace flux::sim {
namespace {

// A value that a scope's steps may read.
struct Known {
  v1::Input input;
  Shape shape;
};

class Maker {
 public:
  Maker(Program* program, const GraphBounds& bounds, Dice& dice)
      : program_(*program), bounds_(bounds), dice_(dice) {}

  // A piece of graph that a task goes on as, and some of its own tasks as well.
  const v1::Definition* MakeFragment(const std::string& name, uint32_t* names) {
    names_ = *names;
    in_fragment_ = true;
    definition_.set_format(1);
    definition_.set_version("1");
    definition_.set_name(name);
    const std::vector<Shape> shapes = {Shape::kArray, Shape::kNumber};
    NewScope(static_cast<uint32_t>(shapes.size()));
    FillScope(0, 0, shapes, 1 + dice_.Below(3));
    if (dice_.OneIn(2)) EndWithTask();
    *names = names_;
    program_.fragments.push_back(std::make_shared<const v1::Definition>(std::move(definition_)));
    const v1::Definition* const made = program_.fragments.back().get();
    for (const std::string& task : recurring_) program_.scripts[task].fragment = made;
    return made;
  }

  void Make() {
    v1::Definition& definition = definition_;
    definition.set_format(1);
    definition.set_version("1");
    if (bounds_.deadlines && dice_.OneIn(4)) {
      definition.set_execution_timeout_ms(dice_.Between(2'000, 60'000));
    }
    std::vector<Shape> shapes = {Shape::kArray};
    for (uint64_t more = dice_.Below(3); more > 0; --more) {
      shapes.push_back(dice_.Pick({Shape::kArray, Shape::kObject, Shape::kNumber, Shape::kBool}));
    }
    for (const Shape shape : shapes) program_.inputs.push_back(LiteralOf(shape, dice_.Next()));
    NewScope(static_cast<uint32_t>(shapes.size()));
    FillScope(0, 0, shapes, 2 + dice_.Below(bounds_.root_steps_max - 1));
    if (bounds_.undoes) {
      program_.scripts["undo"] = {.shape = Shape::kNone, .transient_max = 1};
    }
    program_.definition = std::move(definition_);
  }

 private:
  v1::Scope& scope(uint32_t index) { return *definition_.mutable_scopes(static_cast<int>(index)); }

  uint32_t NewScope(uint32_t parameters) {
    definition_.add_scopes()->set_parameters(parameters);
    return static_cast<uint32_t>(definition_.scopes_size() - 1);
  }

  void SetResult(uint32_t index, v1::Input input) {
    *scope(index).mutable_result() = std::move(input);
  }

  // Its value is a task's, which often goes on: most often in tail position.
  void EndWithTask() {
    v1::Step step;
    step.set_name(absl::StrCat("s", names_++));
    AddTask({}, &step);
    step.clear_undo();
    step.clear_on_exhausted();
    TaskScript& script = program_.scripts[step.name()];
    if (script.fragment == nullptr && script.continues == 0) Recur(step.name(), &script);
    CountRounds(&step);
    *scope(0).add_steps() = std::move(step);
    v1::Input result;
    result.set_step(static_cast<uint32_t>(scope(0).steps_size() - 1));
    result.set_optional(dice_.OneIn(4));
    SetResult(0, std::move(result));
  }

  // The task goes on as the fragment that it lies in.
  void Recur(const std::string& name, TaskScript* script) {
    script->continues = 500;
    recurring_.push_back(name);
  }

  // One that recurs and may be in tail position has the same path each time: it is told how often
  // it has, so that its answers differ.
  void CountRounds(v1::Step* step) {
    if (std::find(recurring_.begin(), recurring_.end(), step->name()) == recurring_.end()) return;
    step->add_inputs()->set_parameter(1);
    program_.scripts[step->name()].counts = true;
  }

  // ---- inputs ----

  v1::Input Literal(Shape shape) {
    v1::Input input;
    *input.mutable_literal() = LiteralOf(shape, dice_.Next());
    return input;
  }

  // Of the wanted shape for the most part, so that graphs get far before they go wrong.
  const Known* AnyKnown(const std::vector<Known>& pool, std::optional<Shape> wanted) {
    if (pool.empty()) return nullptr;
    if (wanted && !dice_.OneIn(20)) {
      std::vector<const Known*> fit;
      for (const Known& known : pool) {
        if (known.shape == *wanted || (*wanted == Shape::kArray && known.shape == Shape::kList)) {
          fit.push_back(&known);
        }
      }
      return fit.empty() ? nullptr : fit[dice_.Below(fit.size())];
    }
    // The newest ones more often: graphs grow deep as well as wide.
    const size_t from = dice_.OneIn(2) && pool.size() > 3 ? pool.size() - 3 : 0;
    return &pool[from + dice_.Below(pool.size() - from)];
  }

  // An input that is read before its step begins.
  v1::Input AnyInput(const std::vector<Known>& pool, std::optional<Shape> wanted = std::nullopt) {
    const Known* known = dice_.OneIn(8) ? nullptr : AnyKnown(pool, wanted);
    v1::Input input;
    if (known == nullptr) {
      input = Literal(wanted.value_or(
          dice_.Pick({Shape::kNumber, Shape::kBool, Shape::kArray, Shape::kObject})));
    } else {
      input = known->input;
      if (known->shape == Shape::kObject && !dice_.OneIn(3)) {
        input.set_pointer(dice_.Pick({"/a", "/b", "/b/0"}));
      }
    }
    if (dice_.OneIn(4)) input.set_optional(true);
    return input;
  }

  // One that its body may be given while it runs: whether a pointer into it leads nowhere must not
  // depend on which comes first.
  v1::Input AnyCapture(const std::vector<Known>& pool, Shape* shape) {
    const Known* known = AnyKnown(pool, std::nullopt);
    v1::Input input;
    *shape = known == nullptr ? Shape::kNumber : known->shape;
    input = known == nullptr ? Literal(Shape::kNumber) : known->input;
    if (dice_.OneIn(4)) input.set_optional(true);
    return input;
  }

  void AddInputs(const std::vector<Known>& pool, uint64_t count, v1::Step* step) {
    for (; count > 0; --count) *step->add_inputs() = AnyInput(pool);
  }

  // Captures of a body; their shapes are appended.
  template <typename Inputs>
  void AddCaptures(const std::vector<Known>& pool, std::vector<Shape>* shapes, Inputs* inputs) {
    for (uint64_t count = dice_.Below(3); count > 0; --count) {
      Shape shape;
      *inputs->Add() = AnyCapture(pool, &shape);
      shapes->push_back(shape);
    }
  }

  // ---- scopes ----

  uint32_t Body(uint32_t depth, const std::vector<Shape>& parameters) {
    const uint32_t index = NewScope(static_cast<uint32_t>(parameters.size()));
    FillScope(index, depth + 1, parameters, dice_.Below(bounds_.body_steps_max + 1));
    return index;
  }

  void FillScope(uint32_t index, uint32_t depth, const std::vector<Shape>& parameters,
                 uint64_t steps) {
    std::vector<Known> pool;
    for (uint32_t i = 0; i < parameters.size(); ++i) {
      v1::Input input;
      input.set_parameter(i);
      pool.push_back({std::move(input), parameters[i]});
    }
    for (; steps > 0 && steps_ < bounds_.steps_max; --steps) {
      ++steps_;
      const Shape shape = AddStep(index, depth, pool);
      v1::Input input;
      input.set_step(static_cast<uint32_t>(scope(index).steps_size() - 1));
      pool.push_back({std::move(input), shape});
    }
    if (depth == 0 || !dice_.OneIn(8)) SetResult(index, AnyInput(pool));
    // A result that may be skipped makes scopes skip: seldom enough that values get through.
    if (scope(index).has_result() && !dice_.OneIn(3)) {
      scope(index).mutable_result()->set_optional(true);
    }
  }

  // ---- steps: one function a kind ----

  Shape AddStep(uint32_t index, uint32_t depth, const std::vector<Known>& pool) {
    v1::Step step;
    step.set_name(absl::StrCat("s", names_++));
    const bool leaf = depth >= bounds_.depth_max || steps_ + 2 >= bounds_.steps_max;
    const Shape shape = leaf ? AddLeaf(pool, &step) : AddAny(depth, pool, &step);
    if (in_fragment_ && depth == 0) CountRounds(&step);
    const uint32_t earlier = static_cast<uint32_t>(scope(index).steps_size());
    const bool early =
        step.has_join() && (step.join().first() > 0 || step.join().tolerated_failures() > 0);
    if (earlier > 0 && !early && dice_.OneIn(5))
      step.add_after(static_cast<uint32_t>(dice_.Below(earlier)));
    if (!leaf && dice_.OneIn(4)) AddCatch(depth, pool, &step);
    *scope(index).add_steps() = std::move(step);
    return shape;
  }

  Shape AddLeaf(const std::vector<Known>& pool, v1::Step* step) {
    switch (dice_.Below(12)) {
      case 0:
        return AddSleep(pool, step);
      case 1:
        return AddJoin(pool, step);
      case 2:
        return dice_.OneIn(6) ? AddFail(pool, step) : AddSkip(pool, step);
      case 3:
        if (bounds_.events) return AddWait(pool, step);
        return AddTask(pool, step);
      case 4:
        if (!bounds_.children.empty()) return AddChild(pool, step);
        return AddTask(pool, step);
      case 5:
        if (!bounds_.event_targets.empty() && dice_.OneIn(2)) return AddEmit(pool, step);
        return AddTask(pool, step);
      default:
        return AddTask(pool, step);
    }
  }

  Shape AddAny(uint32_t depth, const std::vector<Known>& pool, v1::Step* step) {
    switch (dice_.Below(14)) {
      case 0:
      case 1:
      case 2:
        return AddMap(depth, pool, step);
      case 3:
      case 4:
        return AddLoop(depth, pool, step);
      case 5:
        return AddBlock(depth, pool, step);
      case 6:
      case 7:
        return AddSwitch(depth, pool, step);
      default:
        return AddLeaf(pool, step);
    }
  }

  Shape AddTask(const std::vector<Known>& pool, v1::Step* step) {
    v1::TaskStep* task = step->mutable_task();
    TaskScript& script = program_.scripts[step->name()];
    script.shape =
        dice_.Pick({Shape::kNumber, Shape::kNumber, Shape::kBool, Shape::kArray, Shape::kObject,
                    Shape::kText, Shape::kList, Shape::kOpaque, Shape::kNone});
    AddInputs(pool, dice_.Below(4), step);
    task->set_task(absl::StrCat("t", dice_.Below(3)));
    if (dice_.OneIn(5)) task->set_queue(kQueues[1]);
    if (dice_.OneIn(6)) task->set_priority(static_cast<int32_t>(dice_.Between(-2, 2)));
    AddRetries(task, &script);
    AddTimeouts(task);
    if (dice_.OneIn(12)) script.fails = 400;
    if (dice_.OneIn(8)) script.skips = 400;
    if (dice_.OneIn(10)) script.wide = 300;
    if (dice_.OneIn(6)) script.big = 500;
    if (dice_.OneIn(5)) script.duration_ms_max = dice_.Pick({50, 400});
    if (dice_.OneIn(6)) script.labels = true;
    if (dice_.OneIn(8)) task->set_limit_key_pointer(dice_.Pick({"/a", "/b/0", "/nowhere"}));
    if (bounds_.parks && dice_.OneIn(6)) {
      step->set_on_exhausted(v1::ON_EXHAUSTED_PARK);
      program_.parks = true;
      script.fails = 300;
    }
    if (bounds_.undoes && dice_.OneIn(3)) {
      step->mutable_undo()->mutable_task()->set_task("t0");
      step->mutable_undo()->mutable_task()->mutable_retry()->set_max_attempts(5'000);
      step->mutable_undo()->mutable_task()->mutable_retry()->set_max_backoff_ms(1'000);
      step->mutable_undo()->mutable_task()->mutable_timeouts()->set_start_to_close_ms(5'000);
    }
    const Shape shape = script.shape;
    if (in_fragment_ && dice_.OneIn(4)) {
      Recur(step->name(), &script);
    } else if (bounds_.continues && bounds_.fragment_depth_max > 0 && dice_.OneIn(4)) {
      GraphBounds within = bounds_;
      --within.fragment_depth_max;
      // An event that only a fragment waits for is refused before the fragment is there.
      within.events = within.events && !program_.events.empty();
      within.steps_max = 6;
      within.depth_max = 1;
      script.continues = 700;
      const v1::Definition* const fragment =
          Maker(&program_, within, dice_).MakeFragment("fragment-of-" + step->name(), &names_);
      program_.scripts[step->name()].fragment = fragment;
    }
    return shape;
  }

  Shape AddChild(const std::vector<Known>& pool, v1::Step* step) {
    const Program& child = *bounds_.children[dice_.Below(bounds_.children.size())];
    step->mutable_child()->set_workflow(child.definition.name());
    step->mutable_child()->set_detached(dice_.OneIn(4));
    step->mutable_child()->set_parent_close(
        dice_.Pick({v1::PARENT_CLOSE_POLICY_UNSPECIFIED, v1::PARENT_CLOSE_POLICY_TERMINATE,
                    v1::PARENT_CLOSE_POLICY_ABANDON}));
    // An id that others ask for, too: refused while one of them is open.
    const std::string shared = absl::StrCat("shared-", dice_.Below(2));
    const bool by_input = dice_.OneIn(8);
    if (!by_input && dice_.OneIn(8)) step->mutable_child()->set_workflow_id(shared);
    for (size_t i = 0; i < child.inputs.size(); ++i) {
      v1::Input input = AnyInput(pool, i == 0 ? Shape::kArray : Shape::kNumber);
      input.clear_pointer();
      *step->add_inputs() = std::move(input);
    }
    if (by_input) {
      step->mutable_child()->set_id_input(true);
      const Known* known = dice_.OneIn(4) ? AnyKnown(pool, Shape::kText) : nullptr;
      v1::Input* id = step->add_inputs();
      if (known == nullptr) {
        *id->mutable_literal() = Json(absl::StrCat("\"", shared, "\""));
      } else {
        *id = known->input;
      }
    }
    return Shape::kNumber;
  }

  Shape AddEmit(const std::vector<Known>& pool, v1::Step* step) {
    v1::EmitStep* emit = step->mutable_emit();
    emit->set_event(absl::StrCat("event-", dice_.Below(3)));
    if (dice_.OneIn(4)) emit->set_delay_ms(dice_.Between(1, 5'000));
    v1::Input payload = AnyInput(pool);
    payload.clear_pointer();
    *step->add_inputs() = std::move(payload);
    const std::string& target = bounds_.event_targets[dice_.Below(bounds_.event_targets.size())];
    *step->add_inputs()->mutable_literal() = Json(absl::StrCat("\"", target, "\""));
    program_.emits.push_back(emit->event());
    return Shape::kNone;
  }

  // One in a loop, or in what a chain of fragments may repeat, has a timeout, so that it is not
  // left without an event.
  Shape AddWait(const std::vector<Known>& pool, v1::Step* step) {
    v1::WaitEventStep* wait = step->mutable_wait_event();
    wait->set_event(in_fragment_ ? program_.events[dice_.Below(program_.events.size())]
                                 : absl::StrCat("event-", dice_.Below(3)));
    if (loops_ > 0 || in_fragment_ || dice_.OneIn(3)) {
      wait->set_timeout_ms(dice_.Between(1, 20'000));
      if (!dice_.OneIn(4)) *wait->mutable_default_value() = Json("\"too late\"");
    }
    AddInputs(pool, dice_.Below(2), step);
    if (std::find(program_.events.begin(), program_.events.end(), wait->event()) ==
        program_.events.end()) {
      program_.events.push_back(wait->event());
    }
    return Shape::kText;
  }

  void AddRetries(v1::TaskStep* task, TaskScript* script) {
    v1::RetryPolicy* retry = task->mutable_retry();
    retry->set_initial_backoff_ms(dice_.Pick({1, 20, 300}));
    retry->set_max_backoff_ms(2'000);
    retry->set_factor_permille(dice_.Pick({1'000, 1'500, 2'000}));
    if (dice_.OneIn(4)) retry->set_no_jitter(true);
    if (dice_.OneIn(10)) {
      script->exhausts = 600;
      retry->set_max_attempts(static_cast<uint32_t>(dice_.Between(1, 4)));
    } else {
      // Attempts that faults use up must not run out.
      retry->set_max_attempts(5'000);
      if (dice_.OneIn(4)) script->transient_max = static_cast<uint32_t>(dice_.Between(1, 3));
    }
    if (dice_.OneIn(10)) task->add_non_retriable("other");
  }

  void AddTimeouts(v1::TaskStep* task) {
    v1::TaskTimeouts* timeouts = task->mutable_timeouts();
    timeouts->set_start_to_close_ms(dice_.Pick({2'000, 5'000, 20'000}));
    if (dice_.OneIn(6)) timeouts->set_heartbeat_ms(dice_.Pick({500, 1'500}));
    if (dice_.OneIn(12)) timeouts->set_schedule_to_start_ms(dice_.Pick({1'000, 10'000}));
    if (bounds_.deadlines && dice_.OneIn(5)) {
      timeouts->set_schedule_to_close_ms(dice_.Between(500, 20'000));
    }
  }

  Shape AddSleep(const std::vector<Known>& pool, v1::Step* step) {
    v1::SleepStep* sleep = step->mutable_sleep();
    if (dice_.OneIn(5)) {
      *step->add_inputs() = AnyInput(pool, Shape::kNumber);
    } else {
      const int64_t longest = bounds_.waits && dice_.OneIn(2) ? 600'000 : 2'000;
      sleep->set_duration_ms(dice_.Between(0, longest));
      if (sleep->duration_ms() == 0 && !pool.empty()) {
        *step->add_inputs() = AnyInput(pool, Shape::kNumber);
      }
    }
    return Shape::kNone;
  }

  Shape AddJoin(const std::vector<Known>& pool, v1::Step* step) {
    v1::JoinStep* join = step->mutable_join();
    AddInputs(pool, dice_.Below(4), step);
    if (bounds_.early && step->inputs_size() > 0 && dice_.OneIn(2)) {
      for (v1::Input& input : *step->mutable_inputs()) input.clear_pointer();
      const auto count = static_cast<uint64_t>(step->inputs_size());
      join->set_first(static_cast<uint32_t>(dice_.Below(count + 1)));
      join->set_tolerated_failures(static_cast<uint32_t>(dice_.Below(3)));
    }
    return Shape::kList;
  }

  Shape AddFail(const std::vector<Known>& pool, v1::Step* step) {
    v1::Failure* failure = step->mutable_fail()->mutable_failure();
    failure->set_type(dice_.OneIn(2) ? "mine" : "other");
    failure->set_message("as the graph says");
    AddInputs(pool, dice_.Below(2), step);
    return Shape::kNone;
  }

  Shape AddSkip(const std::vector<Known>& pool, v1::Step* step) {
    step->mutable_skip();
    AddInputs(pool, dice_.Below(2), step);
    return Shape::kNone;
  }

  // Its items' shape is a guess: what arrays hold.
  Shape AddMap(uint32_t depth, const std::vector<Known>& pool, v1::Step* step) {
    *step->add_inputs() = AnyInput(pool, Shape::kArray);
    std::vector<Shape> shapes = {Shape::kNumber};
    AddCaptures(pool, &shapes, step->mutable_inputs());
    if (bounds_.pages && dice_.OneIn(2)) AddPages(step, static_cast<uint32_t>(shapes.size()));
    const uint32_t body = Body(depth, shapes);
    v1::MapStep* map = step->mutable_map();
    map->set_body(body);
    map->set_max_parallel(dice_.Pick({0u, 1u, 2u, 5u}));
    if (bounds_.early && dice_.OneIn(2)) {
      map->set_first(dice_.Below(4));
      map->set_tolerated_failures(static_cast<uint32_t>(dice_.Below(3)));
      if (!map->has_page_body() && dice_.OneIn(3)) map->set_tolerated_failure_permille(400);
    }
    return Shape::kList;
  }

  // Its items come from a task that is asked for one page after the other.
  void AddPages(v1::Step* step, uint32_t parameters) {
    *step->mutable_inputs(0) = v1::Input();
    *step->mutable_inputs(0)->mutable_literal() = Json("0");
    const uint32_t body = NewScope(parameters);
    v1::Step fetch;
    fetch.set_name(absl::StrCat("s", names_++));
    fetch.mutable_task()->set_task("t1");
    fetch.add_inputs()->set_parameter(0);
    AddRetries(fetch.mutable_task(), &program_.scripts[fetch.name()]);
    TaskScript script;
    script.shape = Shape::kPage;
    fetch.mutable_task()->mutable_retry()->set_max_attempts(5'000);
    fetch.mutable_task()->clear_non_retriable();
    fetch.mutable_task()->mutable_timeouts()->set_start_to_close_ms(5'000);
    program_.scripts[fetch.name()] = script;
    *scope(body).add_steps() = std::move(fetch);
    scope(body).mutable_result()->set_step(0);
    step->mutable_map()->set_page_body(body);
  }

  Shape AddLoop(uint32_t depth, const std::vector<Known>& pool, v1::Step* step) {
    *step->add_inputs() = AnyInput(pool);
    std::vector<Shape> shapes = {Shape::kNumber};
    AddCaptures(pool, &shapes, step->mutable_inputs());
    ++loops_;
    const uint32_t body = Body(depth, shapes);
    --loops_;
    v1::LoopStep* loop = step->mutable_loop();
    loop->set_body(body);
    loop->set_turns(1 + dice_.Below(bounds_.turns_max));
    if (!scope(body).has_result()) SetResult(body, Literal(Shape::kNumber));
    if (scope(body).steps_size() > 0 && dice_.OneIn(2)) {
      const uint64_t last = static_cast<uint64_t>(scope(body).steps_size());
      loop->mutable_done()->set_step(static_cast<uint32_t>(dice_.Below(last)));
      loop->mutable_done()->set_optional(!dice_.OneIn(4));
    }
    return Shape::kNumber;
  }

  Shape AddBlock(uint32_t depth, const std::vector<Known>& pool, v1::Step* step) {
    std::vector<Shape> shapes;
    AddCaptures(pool, &shapes, step->mutable_inputs());
    step->mutable_block()->set_body(Body(depth, shapes));
    return Shape::kNumber;
  }

  Shape AddSwitch(uint32_t depth, const std::vector<Known>& pool, v1::Step* step) {
    const bool numbers = dice_.OneIn(2);
    *step->add_inputs() = AnyInput(pool, numbers ? Shape::kNumber : Shape::kBool);
    std::vector<Shape> shapes;
    AddCaptures(pool, &shapes, step->mutable_inputs());
    // Bodies first: they add scopes, and with that may move the definition's.
    std::vector<uint32_t> bodies;
    for (uint64_t count = 1 + dice_.Below(2); count > 0; --count) {
      bodies.push_back(Body(depth, shapes));
    }
    const bool otherwise = dice_.OneIn(2);
    const uint32_t default_body = otherwise ? Body(depth, shapes) : 0;
    static constexpr const char* kNumbers[] = {"1", "2"};
    static constexpr const char* kBools[] = {"true", "false"};
    for (size_t i = 0; i < bodies.size(); ++i) {
      v1::SwitchStep::Case* one = step->mutable_switch_()->add_cases();
      *one->mutable_match() = Json(numbers ? kNumbers[i] : kBools[i]);
      one->set_body(bodies[i]);
    }
    if (otherwise) step->mutable_switch_()->set_default_body(default_body);
    return Shape::kNumber;
  }

  void AddCatch(uint32_t depth, const std::vector<Known>& pool, v1::Step* step) {
    for (uint64_t count = 1 + dice_.Below(2); count > 0; --count) {
      v1::CatchClause clause;
      switch (dice_.Below(4)) {
        case 0:
          clause.add_types("mine");
          break;
        case 1:
          clause.add_types("other");
          clause.add_types("flux.bad_projection");
          break;
        default:
          break;  // all
      }
      std::vector<Shape> shapes = {Shape::kText};
      AddCaptures(pool, &shapes, clause.mutable_captures());
      clause.set_body(Body(depth, shapes));
      const bool all = clause.types().empty();
      *step->add_catches() = std::move(clause);
      if (all) return;
    }
  }

  Program& program_;
  const GraphBounds& bounds_;
  Dice& dice_;
  v1::Definition definition_;
  uint32_t steps_ = 0;
  uint32_t loops_ = 0;  // that are open around what is being made
  uint32_t names_ = 0;
  bool in_fragment_ = false;
  std::vector<std::string> recurring_;  // tasks that go on as the fragment being made
};

}  // namespace

Program MakeProgram(const std::string& name, const GraphBounds& bounds, Dice& dice) {
  Program program;
  Maker(&program, bounds, dice).Make();
  program.definition.set_name(name);
  return program;
}

bool MayBeRefused(const v1::Definition& definition) {
  for (const v1::Step& step : definition.scopes(0).steps()) {
    if (step.has_map() && step.inputs(0).source_case() == v1::Input::kParameter) return true;
  }
  return false;
}

void AddNextVersion(Program* program, Dice& dice) {
  v1::Definition& next = program->next_version;
  next = program->definition;
  next.set_version("2");
  uint32_t names = 0;
  std::set<uint32_t> pages;  // their steps go by one path
  for (const v1::Scope& scope : next.scopes()) {
    for (const v1::Step& step : scope.steps()) {
      if (step.map().has_page_body()) pages.insert(step.map().page_body());
    }
  }
  for (int i = 0; i < next.scopes_size(); ++i) {
    v1::Scope& scope = *next.mutable_scopes(i);
    for (v1::Step& step : *scope.mutable_steps()) {
      if (!step.has_task() || !dice.OneIn(4)) continue;
      step.mutable_task()->set_queue(kQueues[dice.Below(2)]);
      step.mutable_task()->set_priority(static_cast<int32_t>(dice.Between(-2, 2)));
    }
    if (pages.contains(static_cast<uint32_t>(i)) || (i > 0 && !dice.OneIn(3))) continue;
    for (uint64_t more = 1 + dice.Below(2); more > 0; --more) {
      const auto earlier = static_cast<uint64_t>(scope.steps_size());
      v1::Step* step = scope.add_steps();
      step->set_name(absl::StrCat("v", names++));
      if (earlier > 0 && !dice.OneIn(4)) {
        v1::Input* input = step->add_inputs();
        input->set_step(static_cast<uint32_t>(dice.Below(earlier)));
        input->set_optional(dice.OneIn(2));
      }
      if (dice.OneIn(4)) {
        step->mutable_join();
        continue;
      }
      step->mutable_task()->set_task("t0");
      step->mutable_task()->mutable_retry()->set_max_attempts(5'000);
      step->mutable_task()->mutable_retry()->set_max_backoff_ms(1'000);
      step->mutable_task()->mutable_timeouts()->set_start_to_close_ms(5'000);
      program->scripts[step->name()] = {.shape = Shape::kNumber, .transient_max = 1};
    }
  }
}

Program MakeLongProgram(const std::string& name, uint64_t turns, Dice& dice) {
  Program program;
  v1::Definition& definition = program.definition;
  definition.set_name(name);
  definition.set_format(1);
  definition.set_version("1");
  program.inputs.push_back(Json("0"));
  v1::Scope* root = definition.add_scopes();
  v1::Scope* body = definition.add_scopes();
  root->set_parameters(1);
  body->set_parameters(1);
  v1::Step* loop = root->add_steps();
  loop->set_name("rounds");
  loop->add_inputs()->set_parameter(0);
  loop->mutable_loop()->set_body(1);
  loop->mutable_loop()->set_turns(turns);
  root->mutable_result()->set_step(0);
  v1::Step* task = body->add_steps();
  task->set_name("turn");
  task->add_inputs()->set_parameter(0);
  task->mutable_task()->set_task("t0");
  task->mutable_task()->mutable_retry()->set_max_attempts(5'000);
  task->mutable_task()->mutable_retry()->set_max_backoff_ms(1'000);
  task->mutable_task()->mutable_timeouts()->set_start_to_close_ms(5'000);
  body->mutable_result()->set_step(0);
  program.scripts["turn"] = {.shape = Shape::kNumber,
                             .transient_max = static_cast<uint32_t>(dice.Below(2)),
                             .duration_ms_max = 1};
  return program;
}

}  // namespace flux::sim
