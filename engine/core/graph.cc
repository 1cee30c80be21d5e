#include "engine/core/graph.h"

#include <algorithm>
#include <utility>

#include "engine/core/graph_check.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

void FillDefaults(const GraphLimits& limits, v1::TaskStep* task) {
  if (task->queue().empty()) task->set_queue("default");
  v1::RetryPolicy* retry = task->mutable_retry();
  if (retry->max_attempts() == 0) retry->set_max_attempts(kRetryAttemptsDefault);
  retry->set_max_attempts(std::min(retry->max_attempts(), limits.retry_attempts_max));
  if (retry->initial_backoff_ms() == 0) retry->set_initial_backoff_ms(kInitialBackoffMsDefault);
  if (retry->factor_permille() == 0) retry->set_factor_permille(kBackoffFactorPermilleDefault);
  if (retry->max_backoff_ms() == 0) retry->set_max_backoff_ms(kMaxBackoffMsDefault);
  if (retry->no_jitter()) {
    retry->set_jitter_permille(0);
  } else if (retry->jitter_permille() == 0) {
    retry->set_jitter_permille(kJitterPermilleDefault);
  }
  v1::TaskTimeouts* timeouts = task->mutable_timeouts();
  if (timeouts->start_to_close_ms() == 0) timeouts->set_start_to_close_ms(kStartToCloseMsDefault);
}

// Sources of one step, apart: what it waits for, and what its open body is given later.
struct Sources {
  std::vector<uint32_t> steps, parameters, lazy_steps, lazy_parameters;

  void Add(const Graph::InputPlan& input, bool lazy) {
    if (input.source == Graph::InputPlan::Source::kStep) {
      (lazy ? lazy_steps : steps).push_back(input.index);
    } else if (input.source == Graph::InputPlan::Source::kParameter) {
      (lazy ? lazy_parameters : parameters).push_back(input.index);
    }
  }

  static void Distinct(std::vector<uint32_t>* list) {
    std::sort(list->begin(), list->end());
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }

  void Finish() {
    for (auto* list : {&steps, &parameters, &lazy_steps, &lazy_parameters}) Distinct(list);
  }
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Graph>> Graph::Compile(const v1::Definition& definition,
                                                            std::string hash,
                                                            const GraphLimits& limits,
                                                            std::vector<std::string>* warnings) {
  FLUX_RETURN_IF_ERROR(CheckDefinition(definition, limits, warnings));
  auto graph = std::make_shared<Graph>();
  graph->definition_ = definition;
  graph->hash_ = std::move(hash);
  graph->Plan(limits);
  return std::shared_ptr<const Graph>(std::move(graph));
}

absl::StatusOr<std::shared_ptr<const Graph>> Graph::CompileFragment(
    const v1::Definition& definition, const GraphLimits& limits) {
  FLUX_RETURN_IF_ERROR(CheckDefinition(definition, limits, nullptr));
  auto graph = std::make_shared<Graph>();
  graph->fragment_ = true;
  graph->definition_ = definition;
  graph->Plan(limits);
  return std::shared_ptr<const Graph>(std::move(graph));
}

const Graph::EventPlan* Graph::FindEvent(std::string_view name) const {
  const auto it = std::lower_bound(
      events_.begin(), events_.end(), name,
      [](const EventPlan& event, std::string_view wanted) { return event.name < wanted; });
  return it != events_.end() && it->name == name ? &*it : nullptr;
}

const Graph::EventPlan* Graph::EventOfAnotherType(const Graph& other) const {
  for (const EventPlan& event : events_) {
    const EventPlan* theirs = event.type.empty() ? nullptr : other.FindEvent(event.name);
    if (theirs != nullptr && !theirs->type.empty() && theirs->type != event.type) return &event;
  }
  return nullptr;
}

void Graph::Plan(const GraphLimits& limits) {
  scopes_.resize(static_cast<size_t>(definition_.scopes_size()));
  for (uint32_t i = 0; i < scopes_.size(); ++i) PlanScope(i, limits);
  for (uint32_t i = 0; i < scopes_.size(); ++i) PlanDependencies(i);
  // Bodies may be numbered in any order, so depth goes from the root down.
  if (fragment_) scopes_[0].role = Role::kFragment;
  std::vector<uint32_t> todo = {0};
  while (!todo.empty()) {
    const uint32_t scope = todo.back();
    todo.pop_back();
    for (uint32_t i = 0; i < scopes_[scope].steps.size(); ++i) {
      const v1::Step& step = *scopes_[scope].steps[i].step;
      ForEachBody(step, [&](uint32_t body, Role role, uint32_t clause) {
        ScopePlan& plan = scopes_[body];
        plan.role = role;
        plan.owner_scope = scope;
        plan.owner_step = i;
        plan.clause = clause;
        plan.depth = scopes_[scope].depth + 1;
        todo.push_back(body);
      });
    }
  }
  PlanUndo(limits);
  PlanEvents();
  for (const ScopePlan& scope : scopes_) {
    for (const StepPlan& step : scope.steps) {
      if (step.step->has_task()) tasks_.push_back(step.task.task());
    }
  }
  std::sort(tasks_.begin(), tasks_.end());
  tasks_.erase(std::unique(tasks_.begin(), tasks_.end()), tasks_.end());
}

// A step with an undo task has a scope of its own with that one call, numbered behind the
// definition's.
void Graph::PlanUndo(const GraphLimits& limits) {
  const size_t defined = scopes_.size();
  for (size_t s = 0; s < defined; ++s) {
    for (size_t i = 0; i < scopes_[s].steps.size(); ++i) {
      const v1::Step& undone = *scopes_[s].steps[i].step;
      if (!undone.has_undo()) continue;
      auto scope = std::make_unique<v1::Scope>();
      scope->set_parameters(static_cast<uint32_t>(undone.inputs_size()) + 1);
      v1::Step* call = scope->add_steps();
      call->set_name("undo");
      *call->mutable_task() = undone.undo().task();
      for (uint32_t p = 0; p < scope->parameters(); ++p) call->add_inputs()->set_parameter(p);
      ScopePlan plan;
      plan.scope = scope.get();
      plan.role = Role::kUndo;
      plan.owner_scope = static_cast<uint32_t>(s);
      plan.owner_step = static_cast<uint32_t>(i);
      plan.roots = {0};
      plan.parameter_dependants.resize(scope->parameters());
      plan.parameter_lazy.resize(scope->parameters());
      StepPlan& step = plan.steps.emplace_back();
      step.step = call;
      step.kind = v1::Step::kTask;
      step.task = call->task();
      FillDefaults(limits, &step.task);
      for (const v1::Input& input : call->inputs()) step.inputs.push_back(PlanInput(input));
      for (std::vector<uint32_t>& dependants : plan.parameter_dependants) dependants.push_back(0);
      undo_scopes_.push_back(std::move(scope));
      scopes_[s].steps[i].undo_scope = static_cast<uint32_t>(scopes_.size());
      scopes_.push_back(std::move(plan));
    }
  }
}

void Graph::PlanEvents() {
  for (uint32_t s = 0; s < scopes_.size(); ++s) {
    for (const StepPlan& step : scopes_[s].steps) {
      if (step.kind != v1::Step::kWaitEvent) continue;
      EventPlan event;
      bool in_loop = false;
      bool in_map = fragment_;  // what a fragment lies in is not known here
      for (uint32_t at = s; scopes_[at].role != Role::kRoot && scopes_[at].role != Role::kFragment;
           at = scopes_[at].owner_scope) {
        if (scopes_[at].role == Role::kLoopTurn) {
          in_loop = true;
          event.turn_scope = at;  // the outermost, in the end
        } else if (scopes_[at].role == Role::kMapItem) {
          in_map = true;
          event.turn_scope.reset();
        }
      }
      if (fragment_) event.turn_scope.reset();
      event.name = step.step->wait_event().event();
      event.type = step.step->wait_event().type();
      event.readers = 1;
      event.in_loop = in_loop;
      event.streamed = in_loop && !in_map;
      events_.push_back(std::move(event));
    }
  }
  std::sort(events_.begin(), events_.end(),
            [](const EventPlan& a, const EventPlan& b) { return a.name < b.name; });
  size_t kept = 0;
  for (size_t i = 0; i < events_.size(); ++i) {
    if (kept > 0 && events_[kept - 1].name == events_[i].name) {
      EventPlan& event = events_[kept - 1];
      ++event.readers;
      if (event.type.empty()) event.type = std::move(events_[i].type);
      event.in_loop = event.in_loop || events_[i].in_loop;
      event.streamed = false;
      if (event.turn_scope != events_[i].turn_scope) event.turn_scope.reset();
    } else {
      if (kept != i) events_[kept] = std::move(events_[i]);
      ++kept;
    }
  }
  events_.resize(kept);
}

Graph::InputPlan Graph::PlanInput(const v1::Input& input) {
  InputPlan plan;
  plan.optional = input.optional();
  plan.input = &input;
  switch (input.source_case()) {
    case v1::Input::kStep:
      plan.source = InputPlan::Source::kStep;
      plan.index = input.step();
      break;
    case v1::Input::kParameter:
      plan.source = InputPlan::Source::kParameter;
      plan.index = input.parameter();
      break;
    case v1::Input::kLiteral:
    case v1::Input::SOURCE_NOT_SET:
      plan.source = InputPlan::Source::kLiteral;
      plan.index = static_cast<uint32_t>(literals_.size());
      literals_.push_back(
          input.literal().encoding() == v1::ENCODING_NONE ? Value()
          : fragment_                                     ? Value::CopyOf(input.literal())
                      : Value::Referring(std::make_shared<const v1::Payload>(input.literal()),
                                         Value::Origin::kLiteral, plan.index));
      break;
  }
  return plan;
}

void Graph::PlanScope(uint32_t index, const GraphLimits& limits) {
  ScopePlan& plan = scopes_[index];
  const v1::Scope& scope = definition_.scopes(static_cast<int>(index));
  plan.scope = &scope;
  plan.steps.resize(static_cast<size_t>(scope.steps_size()));
  for (int i = 0; i < scope.steps_size(); ++i) {
    StepPlan& step = plan.steps[static_cast<size_t>(i)];
    step.step = &scope.steps(i);
    step.kind = step.step->kind_case();
    if (step.step->has_task()) {
      step.task = step.step->task();
      FillDefaults(limits, &step.task);
    }
    if (step.step->has_map()) {
      const uint32_t asked = step.step->map().max_parallel();
      step.max_parallel =
          std::min(asked == 0 ? kMapParallelDefault : asked, limits.map_parallel_max);
    }
    for (const v1::Input& input : step.step->inputs()) step.inputs.push_back(PlanInput(input));
    for (const v1::CatchClause& clause : step.step->catches()) {
      std::vector<InputPlan>& captures = step.catch_captures.emplace_back();
      for (const v1::Input& capture : clause.captures()) captures.push_back(PlanInput(capture));
    }
    step.early = step.step->has_join() &&
                 (step.step->join().first() != 0 || step.step->join().tolerated_failures() != 0);
    if (step.step->has_loop() && step.step->loop().has_done()) {
      scopes_[step.step->loop().body()].done = PlanInput(step.step->loop().done());
    }
  }
  if (scope.has_result()) plan.result = PlanInput(scope.result());
}

void Graph::PlanDependencies(uint32_t index) {
  ScopePlan& plan = scopes_[index];
  plan.parameter_dependants.resize(plan.scope->parameters());
  plan.parameter_lazy.resize(plan.scope->parameters());
  for (uint32_t i = 0; i < plan.steps.size(); ++i) {
    StepPlan& step = plan.steps[i];
    Sources sources;
    for (const uint32_t after : step.step->after()) sources.steps.push_back(after);
    for (size_t k = 0; k < step.inputs.size(); ++k) {
      const bool lazy = step.kind == v1::Step::kBlock || (step.kind == v1::Step::kSwitch && k > 0);
      sources.Add(step.inputs[k], lazy);
    }
    for (const auto& captures : step.catch_captures) {
      for (const InputPlan& capture : captures) sources.Add(capture, /*lazy=*/true);
    }
    sources.Finish();
    step.sources = sources.steps;
    step.waits_for = static_cast<uint32_t>(sources.steps.size());
    if (step.waits_for == 0) plan.roots.push_back(i);
    for (const uint32_t source : sources.steps) plan.steps[source].dependants.push_back(i);
    for (const uint32_t source : sources.parameters) {
      plan.parameter_dependants[source].push_back(i);
    }
    for (const uint32_t source : sources.lazy_steps) {
      plan.steps[source].lazy_dependants.push_back(i);
    }
    for (const uint32_t source : sources.lazy_parameters) plan.parameter_lazy[source].push_back(i);
  }
  for (const std::optional<InputPlan>* read : {&plan.result, &plan.done}) {
    if (read->has_value() && (*read)->source == InputPlan::Source::kStep) {
      plan.steps[(*read)->index].in_result = true;
    }
  }
}

}  // namespace flux::engine
