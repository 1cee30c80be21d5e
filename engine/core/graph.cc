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

void Graph::Plan(const GraphLimits& limits) {
  scopes_.resize(static_cast<size_t>(definition_.scopes_size()));
  for (uint32_t i = 0; i < scopes_.size(); ++i) PlanScope(i, limits);
  for (uint32_t i = 0; i < scopes_.size(); ++i) PlanDependencies(i);
  // Bodies may be numbered in any order, so depth goes from the root down.
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
  for (const ScopePlan& scope : scopes_) {
    for (const StepPlan& step : scope.steps) {
      if (step.step->has_task()) tasks_.push_back(step.task.task());
    }
  }
  std::sort(tasks_.begin(), tasks_.end());
  tasks_.erase(std::unique(tasks_.begin(), tasks_.end()), tasks_.end());
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
          input.literal().encoding() == v1::ENCODING_NONE
              ? Value()
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
          std::min(asked == 0 ? limits.map_parallel_default : asked, limits.map_parallel_max);
    }
    for (const v1::Input& input : step.step->inputs()) step.inputs.push_back(PlanInput(input));
    for (const v1::CatchClause& clause : step.step->catches()) {
      std::vector<InputPlan>& captures = step.catch_captures.emplace_back();
      for (const v1::Input& capture : clause.captures()) captures.push_back(PlanInput(capture));
    }
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
}

}  // namespace flux::engine
