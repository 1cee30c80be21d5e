// Snapshots read back: nothing in one is believed before it is checked against the graph.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "engine/core/record.h"
#include "engine/core/snapshot.h"
#include "google/protobuf/arena.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

using internal::ExecutionState;
using internal::Frame;
using internal::ItemStatus;
using internal::LoopState;
using internal::MapState;
using internal::Parameter;
using internal::Phase;
using internal::StepExtra;
using internal::StepState;

// Lists and splits in one another.
inline constexpr uint32_t kReadDepthMax = 2 * (kListDepthMax + kSplitDepthMax);

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError(absl::StrCat("the snapshot is damaged: ", what));
}

class Reader {
 public:
  // Takes the start record out of `in`.
  Reader(v1::Snapshot& in, const BlobReader& blobs) : in_(in), blobs_(blobs) {}

  absl::StatusOr<Execution> Load(std::shared_ptr<const Graph> graph) {
    state_->graph = std::move(graph);
    FLUX_RETURN_IF_ERROR(ReadExecution());
    for (const std::string& bytes : in_.fragments()) {
      v1::Definition definition;
      if (!definition.ParseFromString(bytes)) return Damaged("a fragment cannot be parsed");
      absl::StatusOr<std::shared_ptr<const Graph>> fragment = Graph::CompileFragment(definition);
      if (!fragment.ok()) {
        return Damaged(absl::StrCat("a fragment is refused: ", fragment.status().message()));
      }
      fragments_.push_back(*std::move(fragment));
    }
    for (int i = 0; i < in_.values_size(); ++i) {
      FLUX_ASSIGN_OR_RETURN(Value value, ReadValue(in_.values(i)));
      values_.push_back(std::move(value));
    }
    if (in_.has_result()) {
      FLUX_ASSIGN_OR_RETURN(state_->result, ReadValue(in_.result()));
      state_->bytes += state_->result.memory_bytes();
    }
    for (const v1::SnapshotFrame& frame : in_.frames()) FLUX_RETURN_IF_ERROR(ReadFrame(frame));
    if (state_->root == nullptr) return Damaged("it has no root frame");
    FLUX_RETURN_IF_ERROR(CheckFrames());
    FLUX_RETURN_IF_ERROR(ReadMessages());
    Derive();
    for (const v1::SnapshotTimer& timer : in_.timers()) {
      if (state_->FindStep({timer.ref().frame(), timer.ref().step()}) == nullptr &&
          timer.timer() != v1::TIMER_KIND_EXECUTION_TIMEOUT &&
          timer.timer() != v1::TIMER_KIND_EVENT_DELIVERY) {
        return Damaged("a timer belongs to no step");
      }
      state_->timers.insert(
          {timer.due_ms(), timer.ref().frame(), timer.ref().step(), timer.timer()});
    }
    return Execution(std::move(state_));
  }

 private:
  absl::Status ReadExecution() {
    ExecutionState& s = *state_;
    FLUX_RETURN_IF_ERROR(RestoreStarted(blobs_, in_.mutable_started()));
    s.started = std::make_shared<const v1::ExecutionStarted>(std::move(*in_.mutable_started()));
    const std::optional<RunId> run = RunId::FromBytes(s.started->run_id());
    if (!run.has_value()) return Damaged("its run id has not 16 bytes");
    if (s.started->inputs_size() < static_cast<int>(s.graph->scopes()[0].scope->parameters())) {
      return Damaged("it has fewer inputs than its workflow takes");
    }
    if (!v1::ExecutionStatus_IsValid(in_.status()) ||
        in_.status() == v1::EXECUTION_STATUS_UNSPECIFIED) {
      return Damaged("its status is unknown");
    }
    s.run = *run;
    s.request_hash = RequestHash(*s.started);
    s.bytes += s.started->ByteSizeLong();
    s.ordinal = in_.ordinal();
    s.start_time_ms = in_.start_time_ms();
    s.last_time_ms = in_.last_time_ms();
    s.status = in_.status();
    s.close_time_ms = in_.close_time_ms();
    if (in_.has_failure()) s.failure = std::make_unique<v1::Failure>(in_.failure());
    s.next_frame = in_.next_frame();
    s.next_blob = in_.next_blob();
    s.steps_completed = in_.steps_completed();
    s.attempts_failed = in_.attempts_failed();
    if (in_.has_failed_step()) {
      s.has_failed_step = true;
      s.failed_step = {in_.failed_step().frame(), in_.failed_step().step()};
    }
    s.close_reason = in_.close_reason();
    s.close_identity = in_.close_identity();
    s.paused = in_.paused();
    s.generation = in_.generation();
    s.compensated = in_.compensated();
    s.closing_as = in_.closing_as();
    for (const auto& [key, value] : in_.labels_changed() ? in_.labels() : s.started->labels()) {
      s.labels[key] = value;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::shared_ptr<const Graph>> Fragment(uint32_t index) const {
    if (index == 0) return std::shared_ptr<const Graph>();
    if (index > fragments_.size()) {
      return Damaged(absl::StrCat("it refers to fragment ", index, ", which it has not"));
    }
    return fragments_[index - 1];
  }

  absl::Status ReadMessages() {
    ExecutionState& s = *state_;
    for (const v1::SnapshotEvent& from : in_.events()) {
      internal::EventState& event = s.events[from.number()];
      event.name = from.event();
      event.id = from.event_id();
      if (from.has_payload()) {
        FLUX_ASSIGN_OR_RETURN(event.payload, ReadValue(from.payload()));
      }
      event.deliver_at_ms = from.deliver_at_ms();
      event.time_ms = from.time_ms();
      event.readers = from.readers();
      s.bytes += event.payload.memory_bytes();
    }
    for (const std::string& id : in_.event_ids()) {
      s.event_ids.push_back(id);
      s.bytes += 2 * id.size();
    }
    s.next_event = std::max<uint64_t>(in_.next_event(), 1);
    for (const v1::SnapshotOutbox& from : in_.outbox()) {
      internal::OutboxState message;
      message.kind = from.kind();
      message.key = {from.ref().frame(), from.ref().step()};
      message.generation = from.generation();
      message.workflow_id = from.workflow_id();
      message.run_id = from.run_id();
      s.bytes += internal::kMessageBytes;
      s.outbox.emplace(from.number(), std::move(message));
    }
    s.next_outbox = std::max<uint64_t>(in_.next_outbox(), 1);
    for (const v1::SnapshotUndo& from : in_.undo()) {
      internal::UndoState& undo = s.undo.emplace_back();
      undo.number = from.number();
      undo.path = from.step();
      undo.key = {from.ref().frame(), from.ref().step()};
      FLUX_ASSIGN_OR_RETURN(undo.fragment, Fragment(from.fragment()));
      undo.graph = undo.fragment != nullptr ? undo.fragment.get() : s.graph.get();
      undo.scope = from.scope();
      if (undo.scope >= undo.graph->scopes().size() ||
          undo.graph->scopes()[undo.scope].role != Graph::Role::kUndo ||
          undo.graph->scopes()[undo.scope].scope->parameters() !=
              static_cast<uint32_t>(from.parameters_size())) {
        return Damaged(absl::StrCat("what undoes ", from.step(), " does not fit its graph"));
      }
      for (const v1::SnapshotValue& value : from.parameters()) {
        FLUX_ASSIGN_OR_RETURN(undo.parameters.emplace_back(), ReadValue(value));
      }
      s.bytes += internal::kUndoBytes;
    }
    s.next_undo = std::max<uint64_t>(in_.next_undo(), 1);
    return absl::OkStatus();
  }

  // What is kept for look-ups alone.
  void Derive() {
    ExecutionState& s = *state_;
    for (const auto& [number, event] : s.events) {
      if (event.deliver_at_ms == 0) {
        s.delivered.insert({event.name, number});
      } else if (!event.id.empty()) {
        s.delayed_ids[event.id] = number;
      }
    }
    s.known_ids.insert(s.event_ids.begin(), s.event_ids.end());
    for (const auto& [number, frame] : s.frames) {
      const Graph::ScopePlan& scope = s.Scope(*frame);
      for (uint32_t i = 0; i < frame->steps.size(); ++i) {
        const StepState& step = frame->steps[i];
        if (step.phase == Phase::kParked) ++s.parked;
        if (step.phase != Phase::kWaiting) continue;
        if (step.extra != nullptr && step.extra->first_child != nullptr) continue;
        if (scope.steps[i].kind == v1::Step::kWaitEvent) {
          s.readers.insert({scope.steps[i].step->wait_event().event(), {number, i}});
        } else if (step.extra != nullptr && step.extra->child != nullptr && !s.Dead(*frame)) {
          s.children.insert({number, i});
        }
      }
    }
  }

  absl::StatusOr<Value> SharedValue(uint32_t number) const {
    if (number == 0 || number > values_.size()) {
      return Damaged(absl::StrCat("it refers to shared value ", number, " before it"));
    }
    return values_[number - 1];
  }

  // Recursion is bounded by kReadDepthMax.
  absl::StatusOr<Value> ReadValue(const v1::SnapshotValue& from) {
    if (++depth_ > kReadDepthMax) {
      --depth_;
      return Damaged("values nest too deep");
    }
    absl::StatusOr<Value> value = ReadNested(from);
    --depth_;
    return value;
  }

  static absl::StatusOr<Value> ListOf(std::vector<Value> items) {
    absl::StatusOr<Value> list = Value::List(std::move(items));
    if (!list.ok()) return Damaged("a list nests too deep");
    return list;
  }

  absl::StatusOr<Value> ReadNested(const v1::SnapshotValue& from) {
    switch (from.kind_case()) {
      case v1::SnapshotValue::kPayload:
        return Value::CopyOf(from.payload());
      case v1::SnapshotValue::kBlob: {
        FLUX_ASSIGN_OR_RETURN(v1::Payload payload, blobs_(from.blob().ordinal()));
        return Value::FromPayload(std::move(payload), from.blob().ordinal());
      }
      case v1::SnapshotValue::kList: {
        std::vector<Value> items;
        items.reserve(static_cast<size_t>(from.list().items_size()));
        for (const v1::SnapshotValue& item : from.list().items()) {
          FLUX_ASSIGN_OR_RETURN(Value value, ReadValue(item));
          items.push_back(std::move(value));
        }
        return ListOf(std::move(items));
      }
      case v1::SnapshotValue::kPackedList: {
        // Framed as a PayloadList is.
        absl::StatusOr<std::vector<Slice>> slices = SplitPayloadList(from.packed_list());
        if (!slices.ok()) return Damaged("a list cannot be parsed");
        std::vector<Value> items;
        items.reserve(slices->size());
        v1::SnapshotValue item;
        for (const Slice& slice : *slices) {
          if (!item.ParseFromArray(from.packed_list().data() + slice.offset,
                                   static_cast<int>(slice.size))) {
            return Damaged("an item of a list cannot be parsed");
          }
          FLUX_ASSIGN_OR_RETURN(Value value, ReadValue(item));
          items.push_back(std::move(value));
        }
        return ListOf(std::move(items));
      }
      case v1::SnapshotValue::kShared:
        return SharedValue(from.shared());
      case v1::SnapshotValue::kItem: {
        FLUX_ASSIGN_OR_RETURN(const Value split, SharedValue(from.item().shared()));
        if (split.kind() != Value::Kind::kSplit || from.item().index() >= split.items()) {
          return Damaged("an item is of no split payload");
        }
        return split.Item(from.item().index());
      }
      case v1::SnapshotValue::kSplit: {
        FLUX_ASSIGN_OR_RETURN(const Value base, ReadValue(from.split()));
        absl::StatusOr<Value> split = Value::Split(base);
        if (!split.ok() || split->kind() != Value::Kind::kSplit) {
          return Damaged("a payload cannot be split");
        }
        return split;
      }
      case v1::SnapshotValue::kLiteral:
        if (from.literal() == 0 || from.literal() > state_->graph->literals().size()) {
          return Damaged(absl::StrCat("the graph has no literal ", from.literal()));
        }
        return state_->graph->literals()[from.literal() - 1];
      case v1::SnapshotValue::kInput:
        if (from.input() == 0 ||
            from.input() > static_cast<uint32_t>(state_->started->inputs_size())) {
          return Damaged(absl::StrCat("there is no input ", from.input()));
        }
        return Input(from.input() - 1);
      case v1::SnapshotValue::kMarker:
      case v1::SnapshotValue::KIND_NOT_SET:
        break;
    }
    return Value();
  }

  // Each input is one value, however many hold it.
  Value Input(uint32_t index) {
    while (inputs_.size() <= index) {
      inputs_.push_back(internal::InputValue(state_->started, inputs_.size()));
    }
    return inputs_[index];
  }

  absl::Status ReadParameter(const v1::SnapshotValue& from, Parameter* to) {
    to->state = Parameter::State::kSet;
    if (from.kind_case() == v1::SnapshotValue::kMarker) {
      if (from.marker() != v1::SNAPSHOT_MARKER_PENDING &&
          from.marker() != v1::SNAPSHOT_MARKER_SKIPPED) {
        return Damaged("a parameter has an unknown marker");
      }
      to->state = from.marker() == v1::SNAPSHOT_MARKER_PENDING ? Parameter::State::kPending
                                                               : Parameter::State::kSkipped;
      return absl::OkStatus();
    }
    FLUX_ASSIGN_OR_RETURN(to->value, ReadValue(from));
    return absl::OkStatus();
  }

  absl::Status ReadFrame(const v1::SnapshotFrame& from) {
    FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> fragment, Fragment(from.fragment()));
    const auto& scopes = fragment != nullptr ? fragment->scopes() : state_->graph->scopes();
    if (from.scope() >= scopes.size()) {
      return Damaged(absl::StrCat("frame ", from.number(), " is of no scope of its graph"));
    }
    const Graph::ScopePlan& scope = scopes[from.scope()];
    if ((from.number() == 0) != (scope.role == Graph::Role::kRoot) ||
        (!state_->frames.empty() && state_->frames.rbegin()->first >= from.number()) ||
        from.number() >= std::max<uint64_t>(state_->next_frame, 1)) {
      return Damaged(absl::StrCat("frame ", from.number(), " is out of place"));
    }
    if (static_cast<size_t>(from.steps_size()) != scope.steps.size() ||
        static_cast<uint32_t>(from.parameters_size()) != scope.scope->parameters()) {
      return Damaged(absl::StrCat("frame ", from.number(), " does not fit its scope"));
    }
    Frame* parent = nullptr;
    if (from.number() != 0 && scope.role != Graph::Role::kUndo) {
      parent = state_->FindFrame(from.parent_frame());
      const bool owned = parent != nullptr && from.parent_step() < parent->steps.size() &&
                         (scope.role == Graph::Role::kFragment ||
                          (parent->fragment == fragment && parent->scope == scope.owner_scope &&
                           from.parent_step() == scope.owner_step));
      if (!owned) {
        return Damaged(absl::StrCat("frame ", from.number(), " hangs below no step"));
      }
    }
    Frame* frame = internal::AddFrame(*state_, from.number(), from.scope(), parent,
                                      from.parent_step(), from.item(), std::move(fragment));
    frame->remaining = from.remaining();
    for (int i = 0; i < from.parameters_size(); ++i) {
      FLUX_RETURN_IF_ERROR(
          ReadParameter(from.parameters(i), &frame->parameters[static_cast<size_t>(i)]));
    }
    for (int i = 0; i < from.steps_size(); ++i) {
      FLUX_RETURN_IF_ERROR(ReadStep(from.steps(i), &frame->steps[static_cast<size_t>(i)]));
    }
    return absl::OkStatus();
  }

  absl::Status ReadStep(const v1::SnapshotStep& from, StepState* to) {
    if (from.state() < static_cast<uint32_t>(Phase::kPending) ||
        from.state() > static_cast<uint32_t>(Phase::kCancelled)) {
      return Damaged(absl::StrCat("a step has the unknown state ", from.state()));
    }
    to->phase = static_cast<Phase>(from.state());
    to->waiting_for = from.waiting_for();
    to->attempt = from.attempt();
    to->delivery = from.delivery();
    to->generation = from.generation();
    to->scheduled_ms = from.scheduled_ms();
    to->ended_ms = from.ended_ms();
    to->first_scheduled_ms = from.first_scheduled_ms();
    to->resolved = from.resolved();
    if (from.has_output()) {
      FLUX_ASSIGN_OR_RETURN(to->output, ReadValue(from.output()));
      state_->bytes += to->output.memory_bytes();
    }
    internal::SetStepLabels(*state_, *to, from.labels());
    if (from.refused_results() != 0) {
      internal::SetRefused(*state_, *to, {from.refused_delivery(), from.refused_results()});
    }
    if (!from.has_failure() && !from.has_progress() && from.retry_at_ms() == 0 && !from.has_map() &&
        !from.has_loop() && !from.has_child() && !from.has_join()) {
      return absl::OkStatus();
    }
    StepExtra& extra = internal::ExtraOf(*state_, *to);
    if (from.has_failure()) {
      extra.failure = std::make_unique<v1::Failure>(from.failure());
      internal::Charge(*state_, extra, from.failure().message().size());
    }
    if (from.has_progress()) {
      extra.progress = std::make_unique<v1::Payload>(from.progress());
      internal::Charge(*state_, extra, from.progress().data().size());
    }
    extra.wake_ms = from.retry_at_ms();
    extra.yielding = from.yielding();
    if (from.has_map()) FLUX_RETURN_IF_ERROR(ReadMap(from.map(), &extra));
    if (from.has_loop()) {
      extra.loop = std::make_unique<LoopState>();
      extra.loop->turn = from.loop().turn();
      FLUX_ASSIGN_OR_RETURN(extra.loop->state, ReadValue(from.loop().state()));
      for (const v1::SnapshotValue& capture : from.loop().captures()) {
        FLUX_RETURN_IF_ERROR(ReadParameter(capture, &extra.loop->captures.emplace_back()));
      }
      for (const auto& [name, number] : from.loop().events()) extra.loop->events[name] = number;
      for (const auto& [name, number] : from.loop().taken()) extra.loop->taken[name] = number;
      internal::Charge(*state_, extra, sizeof(LoopState));
    }
    if (from.has_child()) {
      extra.child = std::make_unique<internal::ChildState>();
      extra.child->workflow_id = from.child().workflow_id();
      extra.child->run_id = from.child().run_id();
      internal::Charge(*state_, extra,
                       sizeof(internal::ChildState) + extra.child->workflow_id.size());
    }
    if (from.has_join()) {
      extra.join = std::make_unique<internal::JoinState>();
      extra.join->completed = from.join().completed();
      extra.join->failed = from.join().failed();
    }
    return absl::OkStatus();
  }

  absl::Status ReadMap(const v1::SnapshotMap& from, StepExtra* extra) {
    extra->map = std::make_unique<MapState>();
    MapState& map = *extra->map;
    FLUX_ASSIGN_OR_RETURN(map.source, ReadValue(from.source()));
    if (from.statuses().size() != from.items()) {
      return Damaged("a map's items are not those of its source");
    }
    map.last_page = !from.more_pages();
    map.fetching = from.fetching();
    if (from.has_cursor()) {
      FLUX_ASSIGN_OR_RETURN(map.cursor, ReadValue(from.cursor()));
    }
    for (const v1::SnapshotPage& page : from.pages()) {
      FLUX_ASSIGN_OR_RETURN(Value source, ReadValue(page.source()));
      map.pages.push_back({page.first(), std::move(source)});
    }
    // The items that are not opened must be somewhere.
    uint64_t at = from.opened();
    for (const internal::MapPage& page : map.pages) {
      if (page.first > at || page.first + page.source.items() <= at) {
        return Damaged("a map's pages do not follow one another");
      }
      at = page.first + page.source.items();
    }
    if (map.pages.empty() && map.source.kind() != Value::Kind::kNone) at = map.source.items();
    if (at != from.items() || from.opened() > from.items()) {
      return Damaged("a map's items are not those of its source");
    }
    map.failed = from.failed();
    map.items = from.items();
    map.opened = from.opened();
    map.done = from.done();
    map.in_flight = from.in_flight();
    map.statuses.resize(map.items);
    map.outputs.resize(map.items);
    internal::Charge(
        *state_, *extra,
        sizeof(MapState) + map.items * (sizeof(ItemStatus) + sizeof(Value)) +
            (map.source.kind() == Value::Kind::kSplit ? map.source.memory_bytes() : 0));
    state_->live_entries += map.items;
    int next = 0;
    for (size_t i = 0; i < map.items; ++i) {
      const auto status = static_cast<uint8_t>(from.statuses()[i]);
      if (status > static_cast<uint8_t>(ItemStatus::kFailed)) {
        return Damaged("a map's item has an unknown status");
      }
      map.statuses[i] = static_cast<ItemStatus>(status);
      if (map.statuses[i] != ItemStatus::kCompleted) continue;
      ++map.completed;
      if (next >= from.outputs_size()) return Damaged("a map has too few outputs");
      FLUX_ASSIGN_OR_RETURN(map.outputs[i], ReadValue(from.outputs(next++)));
      internal::Charge(*state_, *extra, map.outputs[i].memory_bytes());
    }
    if (next != from.outputs_size()) return Damaged("a map has too many outputs");
    for (const v1::SnapshotValue& capture : from.captures()) {
      FLUX_RETURN_IF_ERROR(ReadParameter(capture, &map.captures.emplace_back()));
    }
    return absl::OkStatus();
  }

  // What Apply takes for granted of a frame's owner.
  absl::Status CheckFrames() const {
    for (const auto& [number, frame] : state_->frames) {
      if (frame->parent != nullptr) {
        const StepExtra& owner = *frame->parent->steps[frame->parent_step].extra;
        const Graph::Role role = state_->Scope(*frame).role;
        const bool fits = role == Graph::Role::kMapItem
                              ? owner.map != nullptr && frame->item < owner.map->items
                          : role == Graph::Role::kPage
                              ? owner.map != nullptr && owner.map->fetching
                              : (role != Graph::Role::kLoopTurn || owner.loop != nullptr) &&
                                    owner.first_child == owner.last_child;
        if (!fits) return Damaged(absl::StrCat("frame ", number, " does not fit its owner"));
      }
      for (const StepState& step : frame->steps) {
        if (step.extra != nullptr && step.extra->yielding && step.extra->map == nullptr &&
            step.extra->loop == nullptr) {
          return Damaged("a step yields that is no map or loop");
        }
      }
    }
    return absl::OkStatus();
  }

  v1::Snapshot& in_;
  const BlobReader& blobs_;
  std::unique_ptr<ExecutionState> state_ = std::make_unique<ExecutionState>();
  std::vector<std::shared_ptr<const Graph>> fragments_;
  uint32_t depth_ = 0;  // of the value being read
  std::vector<Value> values_;
  std::vector<Value> inputs_;
};

}  // namespace

absl::StatusOr<Execution> LoadSnapshot(std::shared_ptr<const Graph> graph, std::string_view bytes,
                                       const BlobReader& blobs) {
  google::protobuf::Arena arena;
  auto& snapshot = *google::protobuf::Arena::CreateMessage<v1::Snapshot>(&arena);
  if (!snapshot.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Damaged(absl::StrCat("its ", bytes.size(), " bytes cannot be parsed"));
  }
  if (snapshot.format() > kSnapshotFormat || snapshot.format() == 0) {
    return absl::DataLossError(absl::StrCat("the snapshot has format ", snapshot.format(),
                                            ", this version reads up to ", kSnapshotFormat,
                                            ": it was written by a newer one"));
  }
  return Reader(snapshot, blobs).Load(std::move(graph));
}

}  // namespace flux::engine
