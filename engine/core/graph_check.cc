#include "engine/core/graph_check.h"

#include <optional>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

std::string StepLabel(const v1::Step& step) {
  return step.location().empty()
             ? absl::StrCat("step \"", absl::CEscape(step.name()), "\"")
             : absl::StrCat("step \"", absl::CEscape(step.name()), "\" (", step.location(), ")");
}

bool HasControlCharacter(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return true;
  }
  return false;
}

class Checker {
 public:
  Checker(const v1::Definition& definition, const GraphLimits& limits,
          std::vector<std::string>* warnings)
      : definition_(definition), limits_(limits), warnings_(warnings) {}

  absl::Status Check() {
    FLUX_RETURN_IF_ERROR(CheckWhole());
    for (int i = 0; i < definition_.scopes_size(); ++i) FLUX_RETURN_IF_ERROR(CheckBodies(i));
    FLUX_RETURN_IF_ERROR(CheckReach());
    for (int i = 0; i < definition_.scopes_size(); ++i) FLUX_RETURN_IF_ERROR(CheckScope(i));
    return absl::OkStatus();
  }

 private:
  template <typename... Parts>
  static absl::Status Refuse(const v1::Step& step, const Parts&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(StepLabel(step), ": ", parts...));
  }

  template <typename... Parts>
  void Warn(const Parts&... parts) {
    if (warnings_ != nullptr) warnings_->push_back(absl::StrCat(parts...));
  }

  // Empty: fine.
  std::string NameFault(std::string_view what, std::string_view name) const {
    if (name.empty()) return absl::StrCat("the ", ToAbsl(what), " is empty: give it one");
    if (name.size() > limits_.name_bytes_max) {
      return absl::StrCat("the ", ToAbsl(what), " has ", name.size(), " bytes, the limit is ",
                          limits_.name_bytes_max, ": shorten it");
    }
    if (HasControlCharacter(name)) {
      return absl::StrCat("the ", ToAbsl(what), " \"", absl::CEscape(ToAbsl(name)),
                          "\" has a control character: take it out");
    }
    return "";
  }

  absl::Status CheckWhole() {
    if (definition_.format() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the definition has format ", definition_.format(),
          ", this server reads up to 1: upgrade the server or define with an older SDK"));
    }
    if (std::string fault = NameFault("workflow's name", definition_.name()); !fault.empty()) {
      return absl::InvalidArgumentError(fault);
    }
    if (definition_.version().size() > limits_.name_bytes_max ||
        HasControlCharacter(definition_.version())) {
      return absl::InvalidArgumentError(
          absl::StrCat("the version \"", absl::CEscape(definition_.version().substr(0, 80)),
                       "\" is over ", limits_.name_bytes_max, " bytes or has control characters"));
    }
    if (definition_.execution_timeout_ms() < 0 || definition_.execution_timeout_ms() > kSpanMsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("the execution timeout of ", definition_.execution_timeout_ms(),
                       " ms is out of range: 0 (none) to ", kSpanMsMax));
    }
    if (definition_.ByteSizeLong() > limits_.definition_bytes_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the definition of ", definition_.name(), " has ",
                       definition_.ByteSizeLong(), " bytes, the limit is ",
                       limits_.definition_bytes_max, ": pass large literals as inputs"));
    }
    const uint32_t scopes = static_cast<uint32_t>(definition_.scopes_size());
    if (scopes == 0) {
      return absl::InvalidArgumentError(absl::StrCat("the definition of ", definition_.name(),
                                                     " has no scopes: scope 0 is the workflow's"));
    }
    if (scopes > limits_.scopes_max) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the definition of ", definition_.name(), " has ", scopes, " scopes, the limit is ",
          limits_.scopes_max, ": split it into several workflows"));
    }
    uint64_t steps = 0;
    for (const v1::Scope& scope : definition_.scopes()) {
      steps += static_cast<uint64_t>(scope.steps_size());
      if (scope.parameters() > limits_.inputs_max + 1) {
        return absl::ResourceExhaustedError(
            absl::StrCat("a scope of ", definition_.name(), " has ", scope.parameters(),
                         " parameters, the limit is ", limits_.inputs_max + 1));
      }
    }
    if (steps > limits_.steps_max) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the definition of ", definition_.name(), " has ", steps, " steps, the limit is ",
          limits_.steps_max, ": use a map or a loop, or split it into several workflows"));
    }
    return absl::OkStatus();
  }

  struct Owner {
    int scope = -1;
    int step = -1;
  };

  absl::Status CheckLabels(const v1::Step& step) const {
    if (static_cast<uint32_t>(step.labels_size()) > limits_.step_labels_max) {
      return Refuse(step, "it has ", step.labels_size(), " labels; at most ",
                    limits_.step_labels_max, " are allowed");
    }
    // In order of the names, so that the first fault is always the same one.
    const std::map<std::string, std::string> labels(step.labels().begin(), step.labels().end());
    for (const auto& [key, value] : labels) {
      std::string fault = NameFault("label's name", key);
      if (fault.empty()) {
        fault =
            NameFault(ToStd(absl::StrCat("value of label \"", absl::CEscape(key), "\"")), value);
      }
      if (!fault.empty()) return Refuse(step, fault);
    }
    return absl::OkStatus();
  }

  // Every body exists and belongs to one step; and names, which make all other messages readable.
  absl::Status CheckBodies(int scope) {
    owners_.resize(static_cast<size_t>(definition_.scopes_size()));
    const auto& steps = definition_.scopes(scope).steps();
    for (int i = 0; i < steps.size(); ++i) {
      const v1::Step& step = steps.Get(i);
      if (std::string fault = NameFault("step's name", step.name()); !fault.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("step ", i, " of scope ", scope, step.location().empty() ? "" : " (",
                         step.location(), step.location().empty() ? "" : ")", ": ", fault));
      }
      FLUX_RETURN_IF_ERROR(CheckLabels(step));
      if (!names_.emplace(step.name(), &step).second) {
        const std::string& other = names_.find(step.name())->second->location();
        return Refuse(step, "another step has that name", other.empty() ? "" : " (", other,
                      other.empty() ? "" : ")", ": name one of them otherwise, with Named()");
      }
      absl::Status status;
      ForEachBody(step, [&](uint32_t body, Graph::Role, uint32_t) {
        if (!status.ok()) return;
        if (body >= static_cast<uint32_t>(definition_.scopes_size())) {
          status = Refuse(step, "its body is scope ", body, ", but there are only ",
                          definition_.scopes_size());
        } else if (body == 0) {
          status = Refuse(step, "its body is scope 0, which is the workflow's own");
        } else if (owners_[body].scope >= 0) {
          const v1::Step& other = definition_.scopes(owners_[body].scope).steps(owners_[body].step);
          status = Refuse(step, "its body, scope ", body, ", is the body of ", StepLabel(other),
                          " too: give each its own");
        } else {
          owners_[body] = {scope, i};
        }
      });
      FLUX_RETURN_IF_ERROR(status);
    }
    return absl::OkStatus();
  }

  // Every scope hangs below the root, not too deep.
  absl::Status CheckReach() {
    std::vector<std::optional<uint32_t>> depths(owners_.size());
    depths[0] = 0;
    std::vector<uint32_t> todo = {0};
    while (!todo.empty()) {
      const uint32_t scope = todo.back();
      todo.pop_back();
      for (const v1::Step& step : definition_.scopes(static_cast<int>(scope)).steps()) {
        absl::Status status;
        ForEachBody(step, [&](uint32_t body, Graph::Role, uint32_t) {
          depths[body] = *depths[scope] + 1;
          if (*depths[body] > limits_.depth_max) {
            status = Refuse(step, "bodies nest more than ", limits_.depth_max,
                            " deep: move the inner ones into a workflow of their own");
          }
          todo.push_back(body);
        });
        FLUX_RETURN_IF_ERROR(status);
      }
    }
    for (size_t i = 0; i < depths.size(); ++i) {
      if (depths[i].has_value()) continue;
      if (owners_[i].scope < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("scope ", i, " is the body of no step: remove it"));
      }
      return Refuse(definition_.scopes(owners_[i].scope).steps(owners_[i].step), "its body, scope ",
                    i, ", contains itself: a step cannot be part of its own body");
    }
    return absl::OkStatus();
  }

  absl::Status CheckScope(int index) {
    const v1::Scope& scope = definition_.scopes(index);
    for (int i = 0; i < scope.steps_size(); ++i) {
      FLUX_RETURN_IF_ERROR(CheckStep(scope, i));
    }
    const std::string whose =
        index == 0
            ? std::string("the workflow's result")
            : absl::StrCat(
                  "the result of the body of ",
                  StepLabel(definition_.scopes(owners_[index].scope).steps(owners_[index].step)));
    if (scope.has_result()) {
      if (std::string fault = InputFault(scope, scope.steps_size(), scope.result());
          !fault.empty()) {
        return absl::InvalidArgumentError(absl::StrCat(whose, " ", fault));
      }
    } else if (index == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the workflow ", definition_.name(),
                       " has no result: return one of its values (or a literal)"));
    }
    return absl::OkStatus();
  }

  // Empty: fine. Else continues "its input 2 ".
  std::string InputFault(const v1::Scope& scope, int reader, const v1::Input& input) const {
    switch (input.source_case()) {
      case v1::Input::kStep: {
        if (input.step() >= static_cast<uint32_t>(scope.steps_size())) {
          return absl::StrCat("refers to step ", input.step(), ", but its scope has only ",
                              scope.steps_size());
        }
        if (input.step() >= static_cast<uint32_t>(reader)) {
          return absl::StrCat("makes a cycle: it reads ",
                              StepLabel(scope.steps(static_cast<int>(input.step()))),
                              ", which does not come before it; a step reads earlier steps only");
        }
        break;
      }
      case v1::Input::kParameter:
        if (input.parameter() >= scope.parameters()) {
          return absl::StrCat("refers to parameter ", input.parameter(),
                              ", but its scope has only ", scope.parameters());
        }
        break;
      case v1::Input::kLiteral:
        if (input.literal().encoding() == v1::ENCODING_JSON) {
          if (absl::Status status = CheckJson(input.literal().data()); !status.ok()) {
            return absl::StrCat("is a literal that is ", status.message());
          }
        }
        break;
      case v1::Input::SOURCE_NOT_SET:
        return "comes from nowhere: it needs a step, a parameter or a literal";
    }
    if (!IsJsonPointer(input.pointer())) {
      return absl::StrCat("has the pointer \"", absl::CEscape(input.pointer()),
                          "\", which is not a JSON pointer: it is \"/member/0\", or empty");
    }
    return "";
  }

  absl::Status CheckStep(const v1::Scope& scope, int index) {
    const v1::Step& step = scope.steps(index);
    if (static_cast<uint32_t>(step.inputs_size()) > limits_.inputs_max ||
        static_cast<uint32_t>(step.after_size()) > limits_.inputs_max) {
      return absl::ResourceExhaustedError(absl::StrCat(
          StepLabel(step), ": it has ", std::max(step.inputs_size(), step.after_size()),
          " inputs, the limit is ", limits_.inputs_max, ": join them in groups first"));
    }
    for (int i = 0; i < step.inputs_size(); ++i) {
      if (std::string fault = InputFault(scope, index, step.inputs(i)); !fault.empty()) {
        return Refuse(step, "its input ", i, " ", fault);
      }
    }
    for (const uint32_t after : step.after()) {
      v1::Input input;
      input.set_step(after);
      if (std::string fault = InputFault(scope, index, input); !fault.empty()) {
        return Refuse(step, "what it comes after ", fault);
      }
    }
    FLUX_RETURN_IF_ERROR(CheckCatches(scope, index));
    if (step.has_undo()) {
      if (!step.has_task() && !step.has_child()) {
        return Refuse(step, "only a task or a child can be undone: take its undo task off");
      }
      FLUX_RETURN_IF_ERROR(CheckTask(step, step.undo().task(), "undo task's name"));
    }
    if (step.on_exhausted() == v1::ON_EXHAUSTED_PARK && !step.has_task()) {
      return Refuse(step, "only a task can be parked: take OnExhausted(park) off");
    }
    if (!v1::OnExhausted_IsValid(step.on_exhausted())) {
      return Refuse(step, "on_exhausted ", static_cast<int>(step.on_exhausted()),
                    " is not known to this server version");
    }
    return CheckKind(step);
  }

  absl::Status CheckKind(const v1::Step& step) {
    switch (step.kind_case()) {
      case v1::Step::kTask:
        return CheckTask(step, step.task(), "task's name");
      case v1::Step::kSleep:
        return CheckSleep(step);
      case v1::Step::kMap:
        return CheckMap(step);
      case v1::Step::kSwitch:
        return CheckSwitch(step);
      case v1::Step::kLoop:
        return CheckLoop(step);
      case v1::Step::kBlock:
        return CheckParameters(step, step.block().body(), step.inputs_size(), "its inputs");
      case v1::Step::kFail:
        if (step.fail().failure().type().empty()) {
          return Refuse(step, "it fails without a type: give it one");
        }
        if (absl::StartsWith(step.fail().failure().type(), "flux.")) {
          return Refuse(step, "the failure type ", absl::CEscape(step.fail().failure().type()),
                        " begins with \"flux.\", which is reserved");
        }
        if (step.fail().failure().type().size() > limits_.name_bytes_max) {
          return Refuse(step, "its failure type has ", step.fail().failure().type().size(),
                        " bytes; at most ", limits_.name_bytes_max, " are allowed");
        }
        return absl::OkStatus();
      case v1::Step::kJoin:
        return CheckJoin(step);
      case v1::Step::kSkip:
        return absl::OkStatus();
      case v1::Step::kWaitEvent:
        return CheckWaitEvent(step);
      case v1::Step::kChild:
        return CheckChild(step);
      case v1::Step::kEmit:
        return CheckEmit(step);
      case v1::Step::KIND_NOT_SET:
        return Refuse(step, "it has no kind, or one this server version does not know");
    }
    return absl::OkStatus();
  }

  absl::Status CheckJoin(const v1::Step& step) {
    const v1::JoinStep& join = step.join();
    if (join.first() == 0 && join.tolerated_failures() == 0) return absl::OkStatus();
    if (join.first() > static_cast<uint32_t>(step.inputs_size())) {
      return Refuse(step, "it is done with the first ", join.first(),
                    " of its inputs, but has only ", step.inputs_size());
    }
    if (step.after_size() > 0) {
      return Refuse(step, "a join that finishes early cannot come after other steps: ",
                    "order its inputs instead");
    }
    return absl::OkStatus();
  }

  absl::Status CheckWaitEvent(const v1::Step& step) {
    const v1::WaitEventStep& wait = step.wait_event();
    if (std::string fault = NameFault("event's name", wait.event()); !fault.empty()) {
      return Refuse(step, fault);
    }
    FLUX_RETURN_IF_ERROR(CheckSpan(step, "the timeout", wait.timeout_ms()));
    if (wait.has_default_value() && wait.timeout_ms() == 0) {
      return Refuse(step, "it has a default but no timeout, so that it would never be taken");
    }
    if (wait.has_default_value() && wait.default_value().encoding() == v1::ENCODING_JSON) {
      if (absl::Status status = CheckJson(wait.default_value().data()); !status.ok()) {
        return Refuse(step, "its default is ", std::string(Message(status)));
      }
    }
    const auto [other, first] = event_types_.emplace(wait.event(), &step);
    if (first || wait.type().empty()) return absl::OkStatus();
    const v1::WaitEventStep& theirs = other->second->wait_event();
    if (theirs.type().empty()) {
      other->second = &step;
    } else if (theirs.type() != wait.type()) {
      return Refuse(step, "it awaits event \"", absl::CEscape(wait.event()), "\" as ", wait.type(),
                    ", but ", StepLabel(*other->second), " awaits it as ", theirs.type(),
                    ": readers of one event agree on its type");
    }
    return absl::OkStatus();
  }

  absl::Status CheckChild(const v1::Step& step) {
    const v1::ChildStep& child = step.child();
    if (std::string fault = NameFault("child's workflow", child.workflow()); !fault.empty()) {
      return Refuse(step, fault);
    }
    if (!child.workflow_id().empty()) {
      if (std::string fault = NameFault("child's workflow id", child.workflow_id());
          !fault.empty()) {
        return Refuse(step, fault);
      }
      if (child.id_input()) {
        return Refuse(step, "it has a workflow id and an input that gives one: choose");
      }
    }
    if (child.id_input() && step.inputs_size() == 0) {
      return Refuse(step, "its workflow id is to come from its last input, but it has none");
    }
    if (!v1::ParentClosePolicy_IsValid(child.parent_close())) {
      return Refuse(step, "parent_close ", static_cast<int>(child.parent_close()),
                    " is not known to this server version");
    }
    return absl::OkStatus();
  }

  absl::Status CheckEmit(const v1::Step& step) {
    if (std::string fault = NameFault("event's name", step.emit().event()); !fault.empty()) {
      return Refuse(step, fault);
    }
    if (step.inputs_size() != 2) {
      return Refuse(step, "an emit takes the payload and the target's workflow id, it has ",
                    step.inputs_size(), " inputs");
    }
    return CheckSpan(step, "the delay", step.emit().delay_ms());
  }

  absl::Status CheckParameters(const v1::Step& step, uint32_t body, int given, const char* what) {
    const uint32_t takes = definition_.scopes(static_cast<int>(body)).parameters();
    if (takes == static_cast<uint32_t>(given)) return absl::OkStatus();
    return Refuse(step, "its body takes ", takes, " parameters, but ", what, " are ", given);
  }

  absl::Status CheckSpan(const v1::Step& step, const char* what, int64_t span_ms) {
    if (span_ms >= 0 && span_ms <= kSpanMsMax) return absl::OkStatus();
    return Refuse(step, what, " of ", span_ms, " ms is out of range: 0 to ", kSpanMsMax);
  }

  absl::Status CheckTask(const v1::Step& step, const v1::TaskStep& task, const char* what) {
    if (std::string fault = NameFault(what, task.task()); !fault.empty()) {
      return Refuse(step, fault);
    }
    if (!task.queue().empty()) {
      if (std::string fault = NameFault("queue's name", task.queue()); !fault.empty()) {
        return Refuse(step, fault);
      }
    }
    const v1::RetryPolicy& retry = task.retry();
    FLUX_RETURN_IF_ERROR(CheckSpan(step, "the initial backoff", retry.initial_backoff_ms()));
    FLUX_RETURN_IF_ERROR(CheckSpan(step, "the longest backoff", retry.max_backoff_ms()));
    if (retry.factor_permille() != 0 &&
        (retry.factor_permille() < 1000 || retry.factor_permille() > kBackoffFactorPermilleMax)) {
      return Refuse(step, "the backoff factor of ", retry.factor_permille(),
                    " permille is out of range: 1000 (constant) to ", kBackoffFactorPermilleMax);
    }
    if (retry.jitter_permille() > 1000) {
      return Refuse(step, "the jitter of ", retry.jitter_permille(),
                    " permille is out of range: 0 to 1000");
    }
    if (retry.max_attempts() > limits_.retry_attempts_max) {
      Warn(StepLabel(step), ": ", retry.max_attempts(), " attempts are capped to ",
           limits_.retry_attempts_max);
    }
    const v1::TaskTimeouts& timeouts = task.timeouts();
    FLUX_RETURN_IF_ERROR(
        CheckSpan(step, "the schedule_to_start timeout", timeouts.schedule_to_start_ms()));
    FLUX_RETURN_IF_ERROR(
        CheckSpan(step, "the start_to_close timeout", timeouts.start_to_close_ms()));
    FLUX_RETURN_IF_ERROR(CheckSpan(step, "the heartbeat timeout", timeouts.heartbeat_ms()));
    FLUX_RETURN_IF_ERROR(
        CheckSpan(step, "the schedule_to_close timeout", timeouts.schedule_to_close_ms()));
    const int64_t start_to_close_ms =
        timeouts.start_to_close_ms() == 0 ? kStartToCloseMsDefault : timeouts.start_to_close_ms();
    if (timeouts.heartbeat_ms() > start_to_close_ms) {
      Warn(StepLabel(step), ": its heartbeat timeout (", timeouts.heartbeat_ms(),
           " ms) is longer than its start_to_close timeout (", start_to_close_ms,
           " ms) and never matters");
    }
    for (const std::string& type : task.non_retriable()) {
      if (type.empty()) return Refuse(step, "one of its non-retriable failure types is empty");
    }
    if (!IsJsonPointer(task.limit_key_pointer())) {
      return Refuse(step, "its limit key's pointer \"", absl::CEscape(task.limit_key_pointer()),
                    "\" is not a JSON pointer");
    }
    return absl::OkStatus();
  }

  absl::Status CheckSleep(const v1::Step& step) {
    FLUX_RETURN_IF_ERROR(CheckSpan(step, "the sleep", step.sleep().duration_ms()));
    if (step.inputs_size() > 1) return Refuse(step, "a sleep takes one input at most");
    if (step.inputs_size() == 1 && step.sleep().duration_ms() != 0) {
      return Refuse(step, "it has a duration and an input that gives one: choose");
    }
    return absl::OkStatus();
  }

  absl::Status CheckMap(const v1::Step& step) {
    if (step.inputs_size() < 1) return Refuse(step, "a map needs a list as its first input");
    if (step.map().max_parallel() > limits_.map_parallel_max) {
      Warn(StepLabel(step), ": max_parallel of ", step.map().max_parallel(), " is capped to ",
           limits_.map_parallel_max);
    }
    if (step.map().tolerated_failure_permille() > 1000) {
      return Refuse(step, "a tolerated share of ", step.map().tolerated_failure_permille(),
                    " permille is out of range: 0 to 1000");
    }
    if (step.map().has_page_body()) {
      FLUX_RETURN_IF_ERROR(CheckParameters(step, step.map().page_body(), step.inputs_size(),
                                           "the cursor and the captures"));
      if (!definition_.scopes(static_cast<int>(step.map().page_body())).has_result()) {
        return Refuse(step, "what gets its pages has no result");
      }
    }
    return CheckParameters(step, step.map().body(), step.inputs_size(),
                           "the item and the captures");
  }

  absl::Status CheckSwitch(const v1::Step& step) {
    if (step.inputs_size() < 1) return Refuse(step, "a switch needs its condition as first input");
    if (step.switch_().cases().empty() && !step.switch_().has_default_body()) {
      return Refuse(step, "a switch needs at least one case or a default");
    }
    for (const v1::SwitchStep::Case& one : step.switch_().cases()) {
      if (one.match().encoding() != v1::ENCODING_JSON || !CheckJson(one.match().data()).ok()) {
        return Refuse(step, "the case \"", absl::CEscape(one.match().data().substr(0, 80)),
                      "\" is not JSON");
      }
      FLUX_RETURN_IF_ERROR(
          CheckParameters(step, one.body(), step.inputs_size() - 1, "its captures"));
    }
    for (int i = 0; i < step.switch_().cases_size(); ++i) {
      for (int k = 0; k < i; ++k) {
        if (step.switch_().cases(i).match().data() == step.switch_().cases(k).match().data()) {
          return Refuse(step, "two cases match ",
                        absl::CEscape(step.switch_().cases(i).match().data().substr(0, 80)));
        }
      }
    }
    if (!step.switch_().has_default_body()) return absl::OkStatus();
    return CheckParameters(step, step.switch_().default_body(), step.inputs_size() - 1,
                           "its captures");
  }

  absl::Status CheckLoop(const v1::Step& step) {
    const v1::LoopStep& loop = step.loop();
    if (step.inputs_size() < 1) {
      return Refuse(step, "a loop needs its first state as first input");
    }
    FLUX_RETURN_IF_ERROR(
        CheckParameters(step, loop.body(), step.inputs_size(), "the state and the captures"));
    const v1::Scope& body = definition_.scopes(static_cast<int>(loop.body()));
    if (!body.has_result()) {
      return Refuse(step, "its body has no result, which would be the next state");
    }
    if (!loop.has_done() && loop.turns() == 0) {
      return Refuse(step, "it would never end: give it a condition (done) or a number of turns");
    }
    if (loop.has_done()) {
      if (std::string fault = InputFault(body, body.steps_size(), loop.done()); !fault.empty()) {
        return Refuse(step, "its condition ", fault);
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckCatches(const v1::Scope& scope, int index) {
    const v1::Step& step = scope.steps(index);
    bool all = false;
    for (const v1::CatchClause& clause : step.catches()) {
      if (all) Warn(StepLabel(step), ": a catch clause after one that catches all never runs");
      all = all || clause.types().empty();
      for (const std::string& type : clause.types()) {
        if (type.empty()) return Refuse(step, "a catch clause names an empty failure type");
      }
      if (static_cast<uint32_t>(clause.captures_size()) > limits_.inputs_max) {
        return Refuse(step, "a catch clause has ", clause.captures_size(),
                      " captures, the limit is ", limits_.inputs_max);
      }
      for (int i = 0; i < clause.captures_size(); ++i) {
        if (std::string fault = InputFault(scope, index, clause.captures(i)); !fault.empty()) {
          return Refuse(step, "capture ", i, " of a catch clause ", fault);
        }
      }
      FLUX_RETURN_IF_ERROR(CheckParameters(step, clause.body(), clause.captures_size() + 1,
                                           "the failure and the captures"));
    }
    return absl::OkStatus();
  }

  const v1::Definition& definition_;
  const GraphLimits& limits_;
  std::vector<std::string>* warnings_;
  std::vector<Owner> owners_;
  absl::flat_hash_map<std::string, const v1::Step*> names_;        // looked up, never iterated
  absl::flat_hash_map<std::string, const v1::Step*> event_types_;  // likewise
};

}  // namespace

absl::Status CheckDefinition(const v1::Definition& definition, const GraphLimits& limits,
                             std::vector<std::string>* warnings) {
  return Checker(definition, limits, warnings).Check();
}

}  // namespace flux::engine
