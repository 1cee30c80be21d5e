// Snapshots: the whole state as one message, equal bytes for equal states.
//
// Values that several places share are written once, in Snapshot.values, each after those it is
// made of; so that a loaded execution shares what the saved one shared, and its next snapshot is
// equal byte for byte. Literals and inputs are named, as the graph and the start record hold them.
#include "engine/core/snapshot.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "engine/core/record.h"
#include "google/protobuf/arena.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace flux::engine {
namespace {

using internal::ExecutionState;
using internal::Frame;
using internal::ItemStatus;
using internal::LoopState;
using internal::MapState;
using internal::Parameter;
using internal::StepExtra;
using internal::StepState;

// Items of a list beyond which it is written packed.
inline constexpr size_t kPackedAbove = 1'000;

// Calls `visit` with every value the state holds, always in the same order.
template <typename Visit>
void ForEachValue(const ExecutionState& state, Visit visit) {
  visit(state.result);
  for (const auto& [number, event] : state.events) visit(event.payload);
  for (const internal::UndoState& undo : state.undo) {
    for (const Value& value : undo.parameters) visit(value);
  }
  const auto parameters = [&](const std::vector<Parameter>& list) {
    for (const Parameter& parameter : list) visit(parameter.value);
  };
  for (const auto& [number, frame] : state.frames) {
    parameters(frame->parameters);
    for (const StepState& step : frame->steps) {
      visit(step.output);
      if (step.extra == nullptr) continue;
      if (const MapState* map = step.extra->map.get()) {
        visit(map->source);
        for (const internal::MapPage& page : map->pages) visit(page.source);
        visit(map->cursor);
        for (const Value& output : map->outputs) visit(output);
        parameters(map->captures);
      }
      if (const LoopState* loop = step.extra->loop.get()) {
        visit(loop->state);
        parameters(loop->captures);
      }
    }
  }
}

class Writer {
 public:
  explicit Writer(const ExecutionState& state) : s_(state) {}

  std::string Save() {
    ForEachValue(s_, [&](const Value& value) { Count(value); });
    for (const auto& [number, frame] : s_.frames) WriteFragment(frame->fragment.get());
    for (const internal::UndoState& undo : s_.undo) WriteFragment(undo.fragment.get());
    WriteExecution();
    WriteMessages();
    for (const auto& [number, frame] : s_.frames) WriteFrame(*frame, out_.add_frames());
    for (const internal::Timer& timer : s_.timers) {
      v1::SnapshotTimer* to = out_.add_timers();
      to->set_due_ms(timer.due_ms);
      to->mutable_ref()->set_frame(timer.frame);
      to->mutable_ref()->set_step(timer.step);
      to->set_timer(timer.kind);
    }
    return SerializeDeterministic(out_);
  }

 private:
  struct Shared {
    uint32_t uses = 0;
    uint32_t index = 0;  // + 1 into Snapshot.values, once written
  };

  // A literal of a version that the execution has left is written as any other value.
  bool Named(const Value& value) const {
    if (value.kind() != Value::Kind::kPayload || value.origin() == Value::Origin::kState) {
      return false;
    }
    if (value.origin() == Value::Origin::kInput) return true;
    const std::vector<Value>& literals = s_.graph->literals();
    return value.origin_id() < literals.size() &&
           literals[value.origin_id()].identity() == value.identity();
  }

  // Recursion is bounded by kListDepthMax and kSplitDepthMax.
  void Count(const Value& value) {
    if (value.none() || Named(value)) return;
    // Most values have one holder: they need no entry. (Their parts may be shared all the same.)
    if (value.unshared()) {
      CountParts(value);
      return;
    }
    Shared& shared = shared_[value.identity()];
    // An item refers to its split by index, which therefore is always written apart.
    shared.uses += value.kind() == Value::Kind::kItem ? 2 : 1;
    const bool first = shared.uses <= (value.kind() == Value::Kind::kItem ? 2u : 1u);
    if (first) CountParts(value);
  }

  void CountParts(const Value& value) {
    if (value.kind() == Value::Kind::kItem || value.kind() == Value::Kind::kSplit) {
      Count(value.base());
    } else if (value.kind() == Value::Kind::kList) {
      for (const Value& item : value.list()) Count(item);
    }
  }

  void WriteContent(const Value& value, v1::SnapshotValue* to) {
    switch (value.kind()) {
      case Value::Kind::kPayload:
        if (value.blob() != 0) {
          to->mutable_blob()->set_ordinal(value.blob());
          to->mutable_blob()->set_bytes(value.data_bytes());
        } else {
          value.AppendTo(to->mutable_payload());
        }
        return;
      case Value::Kind::kList:
        WriteList(value, to);
        return;
      case Value::Kind::kSplit:
        Write(value.base(), to->mutable_split());
        return;
      case Value::Kind::kNone:
      case Value::Kind::kItem:
        return;
    }
  }

  // Long lists are written item by item, never in memory as messages all at once.
  void WriteList(const Value& value, v1::SnapshotValue* to) {
    if (value.items() <= kPackedAbove) {
      to->mutable_list();
      for (const Value& item : value.list()) Write(item, to->mutable_list()->add_items());
      return;
    }
    std::string bytes;
    bytes.reserve(value.data_bytes());
    v1::SnapshotValue item;
    for (const Value& each : value.list()) {
      item.Clear();
      Write(each, &item);
      AppendField(v1::SnapshotList::kItemsFieldNumber, item, &bytes);
    }
    to->set_packed_list(std::move(bytes));
  }

  // The index + 1 of a value in Snapshot.values.
  uint32_t WriteShared(const Value& value) {
    if (const uint32_t index = shared_[value.identity()].index; index != 0) return index;
    // Made apart and added when it is whole: what it is made of comes before it.
    auto* content = google::protobuf::Arena::CreateMessage<v1::SnapshotValue>(&arena_);
    WriteContent(value, content);
    out_.mutable_values()->AddAllocated(content);
    const uint32_t index = static_cast<uint32_t>(out_.values_size());
    shared_[value.identity()].index = index;
    return index;
  }

  void Write(const Value& value, v1::SnapshotValue* to) {
    if (value.none()) return;
    if (Named(value)) {
      if (value.origin() == Value::Origin::kLiteral) {
        to->set_literal(value.origin_id() + 1);
      } else {
        to->set_input(value.origin_id() + 1);
      }
    } else if (value.kind() == Value::Kind::kItem) {
      to->mutable_item()->set_shared(WriteShared(value.whole()));
      to->mutable_item()->set_index(value.index());
    } else if (!value.unshared() && shared_[value.identity()].uses > 1) {
      to->set_shared(WriteShared(value));
    } else {
      WriteContent(value, to);
    }
  }

  void WriteParameter(const Parameter& parameter, v1::SnapshotValue* to) {
    switch (parameter.state) {
      case Parameter::State::kSet:
        Write(parameter.value, to);
        return;
      case Parameter::State::kPending:
        to->set_marker(v1::SNAPSHOT_MARKER_PENDING);
        return;
      case Parameter::State::kSkipped:
        to->set_marker(v1::SNAPSHOT_MARKER_SKIPPED);
        return;
    }
  }

  // Each once, in the order in which frames use them.
  void WriteFragment(const Graph* fragment) {
    if (fragment == nullptr || fragments_.contains(fragment)) return;
    out_.add_fragments(SerializeDeterministic(fragment->definition()));
    fragments_[fragment] = static_cast<uint32_t>(out_.fragments_size());
  }

  uint32_t FragmentIndex(const Graph* fragment) {
    return fragment == nullptr ? 0 : fragments_[fragment];
  }

  // Events, the outbox, and what is to be undone.
  void WriteMessages() {
    for (const auto& [number, event] : s_.events) {
      v1::SnapshotEvent* to = out_.add_events();
      to->set_number(number);
      to->set_event(event.name);
      to->set_event_id(event.id);
      if (!event.payload.none()) Write(event.payload, to->mutable_payload());
      to->set_deliver_at_ms(event.deliver_at_ms);
      to->set_time_ms(event.time_ms);
      to->set_readers(event.readers);
    }
    for (const std::string& id : s_.event_ids) out_.add_event_ids(id);
    if (s_.next_event > 1) out_.set_next_event(s_.next_event);
    for (const auto& [number, message] : s_.outbox) {
      v1::SnapshotOutbox* to = out_.add_outbox();
      to->set_number(number);
      to->set_kind(message.kind);
      to->mutable_ref()->set_frame(message.key.frame);
      to->mutable_ref()->set_step(message.key.step);
      to->set_generation(message.generation);
      to->set_workflow_id(message.workflow_id);
      to->set_run_id(message.run_id);
    }
    if (s_.next_outbox > 1) out_.set_next_outbox(s_.next_outbox);
    for (const internal::UndoState& undo : s_.undo) {
      v1::SnapshotUndo* to = out_.add_undo();
      to->set_number(undo.number);
      to->set_step(undo.path);
      to->set_fragment(FragmentIndex(undo.fragment.get()));
      to->set_scope(undo.scope);
      to->mutable_ref()->set_frame(undo.key.frame);
      to->mutable_ref()->set_step(undo.key.step);
      for (const Value& value : undo.parameters) Write(value, to->add_parameters());
    }
    if (s_.next_undo > 1) out_.set_next_undo(s_.next_undo);
  }

  void WriteExecution() {
    out_.set_format(kSnapshotFormat);
    out_.set_ordinal(s_.ordinal);
    StripStarted(*s_.started, out_.mutable_started());
    out_.set_start_time_ms(s_.start_time_ms);
    out_.set_last_time_ms(s_.last_time_ms);
    out_.set_status(s_.status);
    out_.set_close_time_ms(s_.close_time_ms);
    if (!s_.result.none()) Write(s_.result, out_.mutable_result());
    if (s_.failure != nullptr) *out_.mutable_failure() = *s_.failure;
    out_.set_next_frame(s_.next_frame);
    out_.set_next_blob(s_.next_blob);
    out_.set_steps_completed(s_.steps_completed);
    out_.set_attempts_failed(s_.attempts_failed);
    if (s_.has_failed_step) {
      out_.mutable_failed_step()->set_frame(s_.failed_step.frame);
      out_.mutable_failed_step()->set_step(s_.failed_step.step);
    }
    out_.set_close_reason(s_.close_reason);
    out_.set_close_identity(s_.close_identity);
    out_.set_paused(s_.paused);
    out_.set_generation(s_.generation);
    out_.set_compensated(s_.compensated);
    out_.set_closing_as(s_.closing_as);
    const auto& first = s_.started->labels();
    const bool same = first.size() == s_.labels.size() &&
                      std::all_of(s_.labels.begin(), s_.labels.end(), [&](const auto& label) {
                        const auto it = first.find(label.first);
                        return it != first.end() && it->second == label.second;
                      });
    out_.set_labels_changed(!same);
    if (!same) out_.mutable_labels()->insert(s_.labels.begin(), s_.labels.end());
  }

  void WriteFrame(const Frame& frame, v1::SnapshotFrame* to) {
    to->set_number(frame.number);
    to->set_scope(frame.scope);
    to->set_parent_frame(frame.parent != nullptr ? frame.parent->number : 0);
    to->set_parent_step(frame.parent_step);
    to->set_item(frame.item);
    to->set_remaining(frame.remaining);
    to->set_fragment(FragmentIndex(frame.fragment.get()));
    for (const Parameter& parameter : frame.parameters) {
      WriteParameter(parameter, to->add_parameters());
    }
    for (const StepState& step : frame.steps) WriteStep(step, to->add_steps());
  }

  void WriteStep(const StepState& step, v1::SnapshotStep* to) {
    to->set_state(static_cast<uint32_t>(step.phase));
    to->set_waiting_for(step.waiting_for);
    to->set_attempt(step.attempt);
    to->set_delivery(step.delivery);
    to->set_generation(step.generation);
    to->set_scheduled_ms(step.scheduled_ms);
    to->set_ended_ms(step.ended_ms);
    to->set_first_scheduled_ms(step.first_scheduled_ms);
    to->set_resolved(step.resolved);
    if (!step.output.none()) Write(step.output, to->mutable_output());
    if (step.labels != nullptr) {
      to->mutable_labels()->insert(step.labels->begin(), step.labels->end());
    }
    if (step.extra == nullptr) return;
    const StepExtra& extra = *step.extra;
    if (extra.failure != nullptr) *to->mutable_failure() = *extra.failure;
    if (extra.progress != nullptr) *to->mutable_progress() = *extra.progress;
    to->set_retry_at_ms(extra.wake_ms);
    to->set_yielding(extra.yielding);
    if (extra.map != nullptr) WriteMap(*extra.map, to->mutable_map());
    if (extra.loop != nullptr) {
      to->mutable_loop()->set_turn(extra.loop->turn);
      Write(extra.loop->state, to->mutable_loop()->mutable_state());
      for (const Parameter& capture : extra.loop->captures) {
        WriteParameter(capture, to->mutable_loop()->add_captures());
      }
      for (const auto& [name, number] : extra.loop->events) {
        (*to->mutable_loop()->mutable_events())[name] = number;
      }
      for (const auto& [name, number] : extra.loop->taken) {
        (*to->mutable_loop()->mutable_taken())[name] = number;
      }
    }
    if (extra.child != nullptr) {
      to->mutable_child()->set_workflow_id(extra.child->workflow_id);
      to->mutable_child()->set_run_id(extra.child->run_id);
    }
    if (extra.refused != nullptr) {
      to->set_refused_delivery(extra.refused->delivery);
      to->set_refused_results(extra.refused->results);
    }
    if (extra.join != nullptr) {
      to->mutable_join()->set_completed(extra.join->completed);
      to->mutable_join()->set_failed(extra.join->failed);
    }
  }

  void WriteMap(const MapState& map, v1::SnapshotMap* to) {
    to->set_items(map.items);
    to->set_opened(map.opened);
    to->set_done(map.done);
    to->set_in_flight(map.in_flight);
    to->set_statuses(std::string(reinterpret_cast<const char*>(map.statuses.data()), map.items));
    Write(map.source, to->mutable_source());
    for (size_t i = 0; i < map.outputs.size(); ++i) {
      if (map.statuses[i] == ItemStatus::kCompleted) Write(map.outputs[i], to->add_outputs());
    }
    for (const Parameter& capture : map.captures) WriteParameter(capture, to->add_captures());
    to->set_failed(map.failed);
    for (const internal::MapPage& page : map.pages) {
      v1::SnapshotPage* at = to->add_pages();
      at->set_first(page.first);
      Write(page.source, at->mutable_source());
    }
    if (!map.cursor.none()) Write(map.cursor, to->mutable_cursor());
    to->set_more_pages(!map.last_page);
    to->set_fetching(map.fetching);
  }

  const ExecutionState& s_;
  google::protobuf::Arena arena_;
  v1::Snapshot& out_ = *google::protobuf::Arena::CreateMessage<v1::Snapshot>(&arena_);
  absl::flat_hash_map<const void*, Shared> shared_;        // looked up, never iterated
  absl::flat_hash_map<const Graph*, uint32_t> fragments_;  // likewise; index + 1
};

// Whatever message of a snapshot refers to a blob.
void CollectBlobs(const google::protobuf::Message& message, std::set<uint64_t>* blobs) {
  if (message.GetDescriptor() == v1::SnapshotBlob::descriptor()) {
    blobs->insert(static_cast<const v1::SnapshotBlob&>(message).ordinal());
    return;
  }
  if (message.GetDescriptor() == v1::ExecutionStarted::descriptor()) {
    for (const uint64_t blob : static_cast<const v1::ExecutionStarted&>(message).input_blobs()) {
      if (blob != 0) blobs->insert(blob);
    }
    return;
  }
  if (message.GetDescriptor() == v1::SnapshotValue::descriptor()) {
    const auto& value = static_cast<const v1::SnapshotValue&>(message);
    if (value.has_packed_list()) {
      v1::SnapshotList list;
      if (list.ParseFromString(value.packed_list())) CollectBlobs(list, blobs);
      return;
    }
  }
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      CollectBlobs(reflection.GetMessage(message, field), blobs);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      CollectBlobs(reflection.GetRepeatedMessage(message, field, i), blobs);
    }
  }
}

}  // namespace

std::string SaveSnapshot(const Execution& execution) { return Writer(execution.state()).Save(); }

std::vector<uint64_t> BlobsOfSnapshot(std::string_view snapshot) {
  std::set<uint64_t> blobs;
  google::protobuf::Arena arena;
  auto* image = google::protobuf::Arena::CreateMessage<v1::Snapshot>(&arena);
  if (image->ParseFromArray(snapshot.data(), static_cast<int>(snapshot.size()))) {
    CollectBlobs(*image, &blobs);
  }
  return {blobs.begin(), blobs.end()};
}

}  // namespace flux::engine
