#include "client/src/tracer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "client/src/names.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

v1::Input NullInput() {
  v1::Input input;
  input.mutable_literal()->set_data("null");
  input.mutable_literal()->set_encoding(v1::ENCODING_JSON);
  return input;
}

std::string Place(Location at) {
  return at.line == 0 ? std::string() : absl::StrCat(at.file, ":", at.line);
}

// Parameters of a body before its captures: the item, the state or the failure.
uint32_t OwnParameters(BodyRole role) {
  switch (role) {
    case BodyRole::kMap:
    case BodyRole::kPage:
    case BodyRole::kLoop:
    case BodyRole::kCatch:
      return 1;
    case BodyRole::kCase:
    case BodyRole::kDefault:
    case BodyRole::kBlock:
      return 0;
  }
  return 0;
}

}  // namespace

v1::Payload ToProto(const Payload& payload) {
  v1::Payload proto;
  proto.set_data(payload.data);
  proto.set_encoding(static_cast<v1::Encoding>(payload.encoding));
  proto.set_content_type(payload.content_type);
  proto.mutable_metadata()->insert(payload.metadata.begin(), payload.metadata.end());
  return proto;
}

Tracer::Tracer(const WorkflowSpec& spec) {
  definition_.set_format(1);
  definition_.set_name(std::string(spec.name));
  definition_.set_version(std::string(spec.options.version));
  definition_.set_description(std::string(spec.options.description));
  definition_.add_scopes();
  scopes_.emplace_back();
  CheckedName("workflow name", spec.name, {});
  if (!spec.options.version.empty()) CheckedName("workflow version", spec.options.version, {});
  definition_.set_execution_timeout_ms(
      Milliseconds(spec.options.execution_timeout, {}, "the execution timeout"));
}

void Tracer::Record(Location at, const std::string& message) {
  if (!status_.ok() || finished_) return;
  const std::string place = Place(at);
  status_ = absl::InvalidArgumentError(absl::StrCat("workflow ", definition_.name(), ": ", place,
                                                    place.empty() ? "" : ": ", message));
}

ValueRef Tracer::Ref(uint32_t scope, bool parameter, uint32_t index) {
  ValueRef ref;
  ref.tracer = shared_from_this();
  ref.scope = scope;
  ref.parameter = parameter;
  ref.index = index;
  return ref;
}

v1::Step& Tracer::StepAt(uint32_t scope, uint32_t index) {
  return *definition_.mutable_scopes(static_cast<int>(scope))
              ->mutable_steps(static_cast<int>(index));
}

Location Tracer::PlaceOf(const ValueRef& ref) const {
  if (ref.scope >= scopes_.size()) return {};
  if (ref.parameter) return scopes_[ref.scope].at;
  return ref.index < scopes_[ref.scope].steps.size() ? scopes_[ref.scope].steps[ref.index].at
                                                     : Location();
}

std::string Tracer::Describe(const ValueRef& ref) {
  if (ref.scope >= scopes_.size()) return "a value of no step";
  const ScopeInfo& scope = scopes_[ref.scope];
  if (!ref.parameter) {
    if (ref.index >= scope.steps.size()) return "a value of no step";
    const StepInfo& step = scope.steps[ref.index];
    return absl::StrCat("step \"", step.given_name.empty() ? step.base_name : step.given_name,
                        "\"");
  }
  if (ref.scope == 0) return absl::StrCat("parameter ", ref.index + 1, " of the workflow");
  const std::string owner = Describe(Ref(scope.owner_scope, false, scope.owner_step));
  switch (scope.role) {
    case BodyRole::kMap:
      return absl::StrCat("the item of ", owner);
    case BodyRole::kPage:
      return absl::StrCat("the cursor of ", owner);
    case BodyRole::kLoop:
      return absl::StrCat("the state of ", owner);
    default:
      return absl::StrCat("the failure of ", owner);
  }
}

ValueRef Tracer::AddStep(std::string_view base_name, Location at, v1::Step step,
                         const std::vector<Argument>& inputs) {
  const uint32_t scope = open_.back();
  if (inputs.size() > kInputsMax) {
    Fail(at, "a step has ", inputs.size(), " inputs, at most ", kInputsMax,
         "; join them in groups first");
  } else {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::string what = absl::StrCat("argument ", i + 1, " of \"", ToAbsl(base_name), "\"");
      *step.add_inputs() = Resolve(inputs[i], at, what);
    }
  }
  if (++steps_ > kStepsMax) {
    Fail(at, "more than ", kStepsMax,
         " steps; use Map or Loop for what repeats, or split the workflow");
    // Nothing grows any more: a lambda that adds steps without end would take all memory.
    if (!scopes_[scope].steps.empty()) return Ref(scope, false, 0);
  }
  StepInfo& info = scopes_[scope].steps.emplace_back();
  info.at = at;
  info.base_name = std::string(base_name);
  info.own_inputs = static_cast<uint32_t>(step.inputs_size());
  v1::Scope* target = definition_.mutable_scopes(static_cast<int>(scope));
  *target->add_steps() = std::move(step);
  return Ref(scope, false, static_cast<uint32_t>(target->steps_size() - 1));
}

v1::Step* Tracer::Find(const ValueRef& step) {
  if (finished_ || step.parameter || step.scope >= scopes_.size() ||
      step.index >= scopes_[step.scope].steps.size()) {
    Fail({}, "an option is set on a value that is no step of this workflow");
    return nullptr;
  }
  return &StepAt(step.scope, step.index);
}

void Tracer::SetName(const ValueRef& step, std::string_view name) {
  if (Find(step) == nullptr) return;
  CheckedName("step name", name, PlaceOf(step));
  scopes_[step.scope].steps[step.index].given_name = std::string(name);
}

void Tracer::SetLabel(const ValueRef& step, std::string_view name, std::string_view value) {
  v1::Step* found = Find(step);
  if (found == nullptr) return;
  CheckedName("label", name, PlaceOf(step));
  CheckedName(ToStd(absl::StrCat("value of label ", ToAbsl(name))), value, PlaceOf(step));
  (*found->mutable_labels())[std::string(name)] = std::string(value);
}

void Tracer::AddAfter(const ValueRef& step, const ValueRef& earlier) {
  v1::Step* found = Find(step);
  if (found == nullptr) return;
  if (earlier.tracer != step.tracer) {
    FailStep(step, "After() is given a value of another workflow");
  } else if (earlier.parameter) {
    FailStep(step, "After() takes steps; ", Describe(earlier), " is there from the beginning");
  } else if (earlier.scope != step.scope) {
    FailStep(step,
             "After() takes steps of the same body; put it on the step that owns the body, or "
             "pass the value of ",
             Describe(earlier), " into this one");
  } else if (earlier.index >= step.index) {
    FailStep(step, "After() takes steps written before this one, and ", Describe(earlier),
             " is not");
  } else if (found->after_size() >= static_cast<int>(kInputsMax)) {
    FailStep(step, "After() takes at most ", kInputsMax, " steps; join them in groups first");
  } else if (std::find(found->after().begin(), found->after().end(), earlier.index) ==
             found->after().end()) {
    found->add_after(earlier.index);
  }
}

ValueRef Tracer::OpenBody(const ValueRef& owner, const BodySpec& spec, Location at) {
  const uint32_t body = static_cast<uint32_t>(scopes_.size());
  v1::Step* step = Find(owner);
  if (step != nullptr && owner.scope != open_.back()) {
    FailStep(owner, "a body is added to it from inside another body; write it where the step is");
  }
  if (open_.size() > kDepthMax) {
    Fail(at, "bodies are nested deeper than ", kDepthMax,
         " levels; make the inner part a workflow of its own and call it with Child");
  }
  if (scopes_.size() >= kScopesMax) {
    Fail(at, "more than ", kScopesMax, " bodies; split the workflow");
  }
  ScopeInfo& info = scopes_.emplace_back();
  info.owner_scope = owner.scope;
  info.owner_step = owner.index;
  info.role = spec.role;
  info.at = at;
  definition_.add_scopes();
  open_.push_back(body);
  if (step == nullptr) return Ref(body, true, 0);
  switch (spec.role) {
    case BodyRole::kMap:
      step->mutable_map()->set_body(body);
      break;
    case BodyRole::kPage:
      step->mutable_map()->set_page_body(body);
      break;
    case BodyRole::kLoop:
      step->mutable_loop()->set_body(body);
      break;
    case BodyRole::kBlock:
      step->mutable_block()->set_body(body);
      break;
    case BodyRole::kDefault:
      if (step->switch_().has_default_body()) FailStep(owner, "it has two Defaults");
      step->mutable_switch_()->set_default_body(body);
      break;
    case BodyRole::kCase: {
      if (!spec.match.status.ok()) {
        FailStep(owner, "a Case cannot be encoded: ", spec.match.status.message());
      }
      for (const v1::SwitchStep::Case& other : step->switch_().cases()) {
        if (other.match().data() == spec.match.literal.data) {
          FailStep(owner, "two Cases match ", other.match().data());
        }
      }
      v1::SwitchStep::Case* added = step->mutable_switch_()->add_cases();
      *added->mutable_match() = ToProto(spec.match.literal);
      added->set_body(body);
      break;
    }
    case BodyRole::kCatch: {
      info.clause = step->catches_size();
      v1::CatchClause* clause = step->add_catches();
      clause->set_body(body);
      for (const ErrorType& type : spec.types) {
        CheckedName("error type", type.name(), at);
        clause->add_types(std::string(type.name()));
      }
      scopes_[owner.scope].steps[owner.index].catch_captures.emplace_back();
      break;
    }
  }
  return Ref(body, true, 0);
}

v1::Scope* Tracer::CloseBody(const ValueRef& owner, Location at) {
  const ScopeInfo& info = scopes_[open_.back()];
  if (open_.size() == 1 || info.owner_scope != owner.scope || info.owner_step != owner.index) {
    Fail(at, "a body ends that is not the innermost one");
    return nullptr;
  }
  v1::Scope* scope = definition_.mutable_scopes(static_cast<int>(open_.back()));
  open_.pop_back();
  return scope;
}

uint32_t Tracer::Capture(uint32_t body, bool parameter, uint32_t index, bool optional,
                         Location at) {
  const ScopeInfo& info = scopes_[body];
  StepInfo& owner = scopes_[info.owner_scope].steps[info.owner_step];
  v1::Step& step = StepAt(info.owner_scope, info.owner_step);
  const bool in_catch = info.role == BodyRole::kCatch;
  const ValueRef source = Ref(info.owner_scope, parameter, index);
  if (!parameter && index >= info.owner_step) {
    Fail(at, Describe(source), " is used in a body of ",
         Describe(Ref(info.owner_scope, false, info.owner_step)),
         ", which is written before it; write the used step first");
    return 0;
  }
  Captures& captures =
      in_catch ? owner.catch_captures[static_cast<size_t>(info.clause)] : owner.captures;
  auto* inputs =
      in_catch ? step.mutable_catches(info.clause)->mutable_captures() : step.mutable_inputs();
  const uint32_t own_inputs = in_catch ? 0 : owner.own_inputs;
  const auto [found, added] =
      captures.emplace(std::pair(parameter, index), static_cast<uint32_t>(captures.size()));
  if (added) {
    v1::Input* input = inputs->Add();
    if (parameter) {
      input->set_parameter(index);
    } else {
      input->set_step(index);
    }
    input->set_optional(optional);
    if (inputs->size() > static_cast<int>(kInputsMax)) {
      Fail(at, "the body of ", Describe(Ref(info.owner_scope, false, info.owner_step)),
           " uses more than ", kInputsMax, " outer values; join them in groups first");
    }
  } else if (!optional) {
    inputs->Mutable(static_cast<int>(own_inputs + found->second))->set_optional(false);
  }
  return OwnParameters(info.role) + found->second;
}

v1::Input Tracer::Resolve(const Argument& argument, Location at, std::string_view what) {
  if (!argument.status.ok()) {
    Fail(at, ToAbsl(what), " cannot be encoded: ", argument.status.message());
    return NullInput();
  }
  v1::Input input;
  if (!argument.value) {
    *input.mutable_literal() = ToProto(argument.literal);
    return input;
  }
  const ValueRef& ref = *argument.value;
  if (ref.tracer.get() != this || ref.scope >= scopes_.size()) {
    Fail(at, ToAbsl(what),
         " is a value of another workflow (or of an earlier trace); values do not "
         "leave the lambda they are made in");
    return NullInput();
  }
  const auto home = std::find(open_.begin(), open_.end(), ref.scope);
  if (home == open_.end()) {
    const ScopeInfo& body = scopes_[ref.scope];
    const std::string made = Place(PlaceOf(ref));
    Fail(at, ToAbsl(what), " is the value of ", Describe(ref), made.empty() ? "" : " (made at ",
         made, made.empty() ? "" : ")", ", which belongs to a body of ",
         Describe(Ref(body.owner_scope, false, body.owner_step)),
         " that has ended; return it from the body and use the value of the step instead");
    return NullInput();
  }
  bool parameter = ref.parameter;
  uint32_t index = ref.index;
  for (auto body = home + 1; body != open_.end(); ++body) {
    index = Capture(*body, parameter, index, argument.optional, at);
    parameter = true;
  }
  if (parameter) {
    input.set_parameter(index);
  } else {
    input.set_step(index);
  }
  input.set_pointer(ref.pointer);
  input.set_optional(argument.optional);
  return input;
}

void Tracer::CheckedName(std::string_view what, std::string_view name, Location at) {
  const absl::Status status = CheckName(what, name);
  if (!status.ok()) Fail(at, status.message());
}

int64_t Tracer::Milliseconds(absl::Duration duration, Location at, std::string_view what) {
  if (duration < absl::ZeroDuration() || duration > kSpanMax) {
    Fail(at, ToAbsl(what), " of ", absl::FormatDuration(duration),
         " is out of range; it is 0 to 100 years (leave it out for none)");
    return 0;
  }
  return absl::ToInt64Milliseconds(absl::Ceil(duration, absl::Milliseconds(1)));
}

v1::RetryPolicy Tracer::Retry(const RetryOptions& retry, v1::RetryPolicy policy, Location at) {
  if (retry.max_attempts > kRetryAttemptsMax) {
    Fail(at, retry.max_attempts, " attempts, at most ", kRetryAttemptsMax);
  } else if (retry.max_attempts != 0) {
    policy.set_max_attempts(retry.max_attempts);
  }
  if (retry.initial_backoff != absl::ZeroDuration()) {
    policy.set_initial_backoff_ms(Milliseconds(retry.initial_backoff, at, "the initial backoff"));
  }
  if (retry.max_backoff != absl::ZeroDuration()) {
    policy.set_max_backoff_ms(Milliseconds(retry.max_backoff, at, "the longest backoff"));
  }
  if (retry.factor != 0) {
    if (!(retry.factor >= 1 && retry.factor <= kBackoffFactorMax)) {
      Fail(at, "a backoff factor of ", retry.factor, "; it is 1 (constant) to ", kBackoffFactorMax);
    } else {
      policy.set_factor_permille(static_cast<uint32_t>(std::lround(retry.factor * 1000)));
    }
  }
  if (retry.jitter != -1) {
    if (!(retry.jitter >= 0 && retry.jitter <= 1)) {
      Fail(at, "a jitter of ", retry.jitter, "; it is a share from 0 to 1");
    } else {
      const long permille = std::lround(retry.jitter * 1000);
      policy.set_jitter_permille(static_cast<uint32_t>(permille));
      policy.set_no_jitter(permille == 0);
    }
  }
  return policy;
}

v1::TaskStep Tracer::Task(std::string_view name, const TaskOptions& options, Location at) {
  v1::TaskStep task;
  CheckedName("task name", name, at);
  task.set_task(std::string(name));
  if (!options.queue.empty()) CheckedName("queue name", options.queue, at);
  task.set_queue(std::string(options.queue));
  v1::RetryPolicy retry = Retry(options.retry, {}, at);
  if (retry.ByteSizeLong() > 0) *task.mutable_retry() = std::move(retry);
  v1::TaskTimeouts timeouts;
  timeouts.set_start_to_close_ms(Milliseconds(options.timeout, at, "a timeout"));
  timeouts.set_heartbeat_ms(Milliseconds(options.heartbeat, at, "a heartbeat timeout"));
  timeouts.set_schedule_to_start_ms(
      Milliseconds(options.schedule_to_start, at, "a schedule-to-start timeout"));
  timeouts.set_schedule_to_close_ms(
      Milliseconds(options.schedule_to_close, at, "a schedule-to-close timeout"));
  if (timeouts.ByteSizeLong() > 0) *task.mutable_timeouts() = std::move(timeouts);
  if (options.non_retriable.too_many()) {
    Fail(at, "task ", ToAbsl(name), " lists more than ", ErrorTypes::kMax,
         " non-retriable error types; mark the types themselves non_retriable");
  }
  for (const ErrorType& type : options.non_retriable) {
    CheckedName("error type", type.name(), at);
    task.add_non_retriable(std::string(type.name()));
  }
  task.set_priority(options.priority);
  return task;
}

void Tracer::CheckEventType(const std::string& event, const std::string& type, Location at) {
  const auto [first, added] = events_.emplace(event, EventReader{type, at});
  if (added || first->second.type == type) return;
  Fail(at, "event \"", event, "\" is awaited as ", type, " here and as ", first->second.type,
       " at ", Place(first->second.at),
       "; all readers of an event see the same one, so they agree on its type (or give one of them "
       "a name of its own)");
}

void Tracer::AddChild(const WorkflowSpec& child) {
  const auto same = [&](const WorkflowSpec& known) { return known.name == child.name; };
  if (child.name == definition_.name()) return;
  if (std::none_of(children_.begin(), children_.end(), same)) children_.push_back(child);
}

}  // namespace flux::internal
