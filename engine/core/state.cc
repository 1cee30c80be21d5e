#include "engine/core/state.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/core/execution.h"

namespace flux::engine {

Execution::Execution(std::unique_ptr<internal::ExecutionState> state) : state_(std::move(state)) {}
Execution::Execution(Execution&&) noexcept = default;
Execution& Execution::operator=(Execution&&) noexcept = default;
Execution::~Execution() = default;

const v1::ExecutionStarted& Execution::started() const { return *state_->started; }
const RunId& Execution::run() const { return state_->run; }
v1::ExecutionStatus Execution::status() const { return state_->ShownStatus(); }
bool Execution::closed() const { return state_->closed(); }
uint64_t Execution::ordinal() const { return state_->ordinal; }
int64_t Execution::start_time_ms() const { return state_->start_time_ms; }
int64_t Execution::last_time_ms() const { return state_->last_time_ms; }
int64_t Execution::close_time_ms() const { return state_->close_time_ms; }
uint64_t Execution::next_blob() const { return state_->next_blob; }
const Graph& Execution::graph() const { return *state_->graph; }
const std::shared_ptr<const Graph>& Execution::graph_ptr() const { return state_->graph; }

namespace internal {
namespace {

// Civil date of a day count since 1970-01-01, after Howard Hinnant's days_from_civil (public
// domain).
struct Date {
  int64_t year;
  int month, day;
};

Date CivilDate(int64_t days) {
  days += 719468;
  const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const int64_t day_of_era = days - era * 146097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted = (5 * day_of_year + 2) / 153;
  const int day = static_cast<int>(day_of_year - (153 * shifted + 2) / 5 + 1);
  const int month = static_cast<int>(shifted < 10 ? shifted + 3 : shifted - 9);
  return {year_of_era + era * 400 + (month <= 2 ? 1 : 0), month, day};
}

}  // namespace

Frame* AddFrame(ExecutionState& state, uint64_t number, uint32_t scope, Frame* parent,
                uint32_t parent_step, uint64_t item, std::shared_ptr<const Graph> fragment) {
  auto* frame = new Frame;
  if (fragment == nullptr && parent != nullptr) fragment = parent->fragment;
  frame->graph = fragment != nullptr ? fragment.get() : state.graph.get();
  frame->fragment = std::move(fragment);
  const Graph::ScopePlan& plan = frame->graph->scopes()[scope];
  frame->number = number;
  frame->scope = scope;
  frame->parent = parent;
  frame->parent_step = parent_step;
  frame->item = item;
  frame->parameters.resize(plan.scope->parameters());
  frame->steps.resize(plan.steps.size());
  // Numbers only grow, so that the place is the end.
  state.frames.emplace_hint(state.frames.end(), number, frame);
  if (parent == nullptr) {
    if (plan.role == Graph::Role::kRoot) state.root = frame;
  } else {
    frame->depth = parent->depth + 1;
    StepExtra& extra = ExtraOf(state, parent->steps[parent_step]);
    frame->previous = extra.last_child;
    (extra.last_child != nullptr ? extra.last_child->next : extra.first_child) = frame;
    extra.last_child = frame;
  }
  state.bytes += FrameBytes(*frame);
  state.live_entries += frame->steps.size() + 1;
  return frame;
}

StepExtra& ExtraOf(ExecutionState& state, StepState& step) {
  if (step.extra == nullptr) {
    step.extra = std::make_unique<StepExtra>();
    Charge(state, *step.extra, sizeof(StepExtra));
  }
  return *step.extra;
}

void ReleaseExtra(ExecutionState& state, StepState& step) {
  if (step.extra == nullptr) return;
  state.bytes -= step.extra->bytes;
  if (step.extra->map != nullptr) state.live_entries -= step.extra->map->items;
  step.extra.reset();
}

void ClearExtra(ExecutionState& state, StepState& step) {
  if (step.extra == nullptr) return;
  const std::unique_ptr<RefusedState> refused = std::move(step.extra->refused);
  ReleaseExtra(state, step);
  if (refused != nullptr) SetRefused(state, step, *refused);
}

void SetRefused(ExecutionState& state, StepState& step, const RefusedState& refused) {
  StepExtra& extra = ExtraOf(state, step);
  if (extra.refused == nullptr) Charge(state, extra, sizeof(RefusedState));
  extra.refused = std::make_unique<RefusedState>(refused);
}

namespace {

constexpr size_t kLabelBytes = 96;  // of a node, beside what does not fit into its strings

size_t LabelsBytes(const StepLabels& labels) {
  size_t bytes = sizeof(StepLabels);
  for (const auto& [key, value] : labels) bytes += kLabelBytes + key.size() + value.size();
  return bytes;
}

}  // namespace

void SetStepLabels(ExecutionState& state, StepState& step,
                   const google::protobuf::Map<std::string, std::string>& labels) {
  ReleaseLabels(state, step);
  if (labels.empty()) return;
  step.labels = std::make_unique<StepLabels>(labels.begin(), labels.end());
  state.bytes += LabelsBytes(*step.labels);
}

void ReleaseLabels(ExecutionState& state, StepState& step) {
  if (step.labels == nullptr) return;
  state.bytes -= LabelsBytes(*step.labels);
  step.labels.reset();
}

void Charge(ExecutionState& state, StepExtra& extra, size_t bytes) {
  extra.bytes += bytes;
  state.bytes += bytes;
}

size_t FrameBytes(const Frame& frame) {
  // The tree's share of a node and the allocator's words are counted as 64 bytes.
  return sizeof(Frame) + 64 + frame.parameters.size() * sizeof(Parameter) +
         frame.steps.size() * sizeof(StepState);
}

std::string FramePath(const ExecutionState& state, const Frame& frame) {
  if (state.Scope(frame).role == Graph::Role::kUndo) {
    for (const UndoState& undo : state.undo) {
      if (undo.number == frame.item) return undo.path;
    }
  }
  // Collected from the inside out: frames nest at most kFrameDepthMax deep.
  std::vector<std::string> parts;
  for (const Frame* at = &frame; at->parent != nullptr; at = at->parent) {
    const Graph::ScopePlan& scope = state.Scope(*at);
    const std::string& name = state.Plan(*at->parent, at->parent_step).step->name();
    switch (scope.role) {
      case Graph::Role::kMapItem:
      case Graph::Role::kLoopTurn:
        parts.push_back(absl::StrCat(name, "[", at->item, "]"));
        break;
      case Graph::Role::kCatch:
        parts.push_back(absl::StrCat(name, ".catch"));
        break;
      case Graph::Role::kPage:
        parts.push_back(absl::StrCat(name, "[page]"));
        break;
      case Graph::Role::kRoot:
      case Graph::Role::kBlock:
      case Graph::Role::kCase:
      case Graph::Role::kFragment:
      case Graph::Role::kUndo:
        parts.push_back(name);
        break;
    }
  }
  std::string path;
  for (auto it = parts.rbegin(); it != parts.rend(); ++it) {
    if (!path.empty()) path += '.';
    path += *it;
  }
  return path;
}

std::string StepPath(const ExecutionState& state, const Frame& frame, uint32_t step) {
  const std::string& name = state.Plan(frame, step).step->name();
  if (frame.parent == nullptr && state.Scope(frame).role == Graph::Role::kRoot) return name;
  return absl::StrCat(FramePath(state, frame), ".", name);
}

std::string FormatTime(int64_t time_ms) {
  int64_t days = time_ms / 86'400'000;
  int64_t rest = time_ms % 86'400'000;
  if (rest < 0) {
    rest += 86'400'000;
    --days;
  }
  const Date date = CivilDate(days);
  const auto two = [](int64_t n) { return absl::Dec(n, absl::kZeroPad2); };
  return absl::StrCat(absl::Dec(date.year, absl::kZeroPad4), "-", two(date.month), "-",
                      two(date.day), "T", two(rest / 3'600'000), ":", two(rest / 60'000 % 60), ":",
                      two(rest / 1000 % 60), ".", absl::Dec(rest % 1000, absl::kZeroPad3), "Z");
}

std::string FormatSpan(int64_t span_ms) {
  if (span_ms < 1000) return absl::StrCat(span_ms, "ms");
  std::string out;
  const auto unit = [&](int64_t size_ms, const char* name) {
    if (span_ms >= size_ms) absl::StrAppend(&out, span_ms / size_ms, name);
    span_ms %= size_ms;
  };
  unit(86'400'000, "d");
  unit(3'600'000, "h");
  unit(60'000, "m");
  if (span_ms == 0) return out;
  absl::StrAppend(&out, span_ms / 1000);
  if (int64_t ms = span_ms % 1000; ms != 0) {
    std::string digits = absl::StrCat(absl::Dec(ms, absl::kZeroPad3));
    while (digits.back() == '0') digits.pop_back();
    absl::StrAppend(&out, ".", digits);
  }
  return out + "s";
}

std::string_view PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kPending:
      return "pending";
    case Phase::kScheduled:
      return "scheduled";
    case Phase::kBackingOff:
      return "backing off";
    case Phase::kWaiting:
      return "waiting";
    case Phase::kParked:
      return "parked";
    case Phase::kCompleted:
      return "completed";
    case Phase::kFailed:
      return "failed";
    case Phase::kSkipped:
      return "skipped";
    case Phase::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string_view KindName(v1::Step::KindCase kind) {
  switch (kind) {
    case v1::Step::kTask:
      return "task";
    case v1::Step::kSleep:
      return "sleep";
    case v1::Step::kMap:
      return "map";
    case v1::Step::kWaitEvent:
      return "wait_event";
    case v1::Step::kSwitch:
      return "switch";
    case v1::Step::kLoop:
      return "loop";
    case v1::Step::kBlock:
      return "block";
    case v1::Step::kJoin:
      return "join";
    case v1::Step::kChild:
      return "child";
    case v1::Step::kEmit:
      return "emit";
    case v1::Step::kFail:
      return "fail";
    case v1::Step::kSkip:
      return "skip";
    case v1::Step::KIND_NOT_SET:
      break;
  }
  return "unknown";
}

std::string StatusName(v1::ExecutionStatus status) {
  static constexpr std::string_view kPrefix = "EXECUTION_STATUS_";
  const std::string& name = v1::ExecutionStatus_Name(status);
  return name.size() > kPrefix.size() ? name.substr(kPrefix.size()) : name;
}

std::string LabelsText(const google::protobuf::Map<std::string, std::string>& labels) {
  const StepLabels sorted(labels.begin(), labels.end());
  std::string text;
  for (const auto& [key, value] : sorted) {
    absl::StrAppend(&text, text.empty() ? "labels " : ", ", key, "=", value);
  }
  return text;
}

}  // namespace internal
}  // namespace flux::engine
