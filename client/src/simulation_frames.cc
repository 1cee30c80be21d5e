// Frames of a simulated execution: how they open, what settles in them, how they end.
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/simulation.h"
#include "flux/codec.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

// What a frame adds to the path of its owner, as a server writes it.
std::string PathPart(FrameRole role, uint64_t index) {
  switch (role) {
    case FrameRole::kItem:
    case FrameRole::kTurn:
      return absl::StrCat("[", index, "]");
    case FrameRole::kPage:
      return "[page]";
    case FrameRole::kCatch:
      return ".catch";
    case FrameRole::kRoot:
    case FrameRole::kBody:
    case FrameRole::kFragment:
      break;
  }
  return "";
}

}  // namespace

FramePtr SimExecution::OpenFrame(std::shared_ptr<const Program> program, uint32_t scope,
                                 FrameRole role, const FramePtr& parent, uint32_t owner,
                                 uint64_t index, std::vector<ParameterSource> parameters) {
  auto frame = std::make_shared<SimFrame>();
  frame->execution = this;
  frame->program = std::move(program);
  frame->scope = scope;
  frame->role = role;
  frame->parent = parent;
  frame->owner = owner;
  frame->index = index;
  if (parent == nullptr) {
    frame->position = position_;
  } else {
    frame->depth = parent->depth + 1;
    frame->path = absl::StrCat(parent->PathOf(owner), PathPart(role, index), ".");
    // A map's pages come before its items.
    frame->position = Extended(parent->PositionOf(owner), role == FrameRole::kPage ? 0 : index + 1);
    parent->nodes[owner].frames[index] = frame;
  }
  frame->nodes.resize(static_cast<size_t>(frame->def().steps_size()));
  frame->parameters.resize(parameters.size());
  frame->lazy.resize(parameters.size());
  for (uint32_t i = 0; i < parameters.size(); ++i) {
    ParameterSource& source = parameters[i];
    frame->lazy[i] = source.lazy;
    if (source.lazy == nullptr) {
      frame->parameters[i].state =
          source.ended.skipped() ? CellState::kSkipped : CellState::kCompleted;
      frame->parameters[i].value = std::move(source.ended.value);
      continue;
    }
    Cell* cell = CellOf(parent, *source.lazy);
    if (cell != nullptr && !cell->settled()) {
      cell->waiters.push_back({frame, Waiter::What::kParameter, i});
    } else {
      SettleParameter(frame, i);
    }
  }
  BeginFrame(frame);
  return frame;
}

void SimExecution::BeginFrame(const FramePtr& frame) {
  const std::vector<Program::Facts>& facts = frame->program->facts[frame->scope];
  frame->open = static_cast<uint32_t>(frame->nodes.size());
  for (uint32_t i = 0; i < frame->nodes.size(); ++i) {
    Node& node = frame->nodes[i];
    for (const Program::Source& source : facts[i].waits) {
      Cell& cell =
          source.parameter ? frame->parameters[source.index] : frame->nodes[source.index].output;
      if (cell.settled()) continue;
      cell.waiters.push_back({frame, Waiter::What::kStep, i});
      ++node.blocked;
    }
    if (facts[i].early) {
      After(absl::ZeroDuration(), frame, i, [this, i](const FramePtr& at) { EvaluateJoin(at, i); });
    } else if (node.blocked == 0) {
      After(absl::ZeroDuration(), frame, i, [this, i](const FramePtr& at) { StartNode(at, i); });
    }
  }
  if (frame->def().has_result() && frame->def().result().source_case() == v1::Input::kParameter) {
    Cell& cell = frame->parameters[frame->def().result().parameter()];
    if (!cell.settled()) {
      cell.waiters.push_back({frame, Waiter::What::kResult, 0});
      ++frame->open;
    }
  }
  if (frame->open > 0) return;
  // Not at once: a loop without steps would turn on the stack.
  world_->Post(absl::ZeroDuration(), frame->position,
               [this, weak = std::weak_ptr<SimFrame>(frame)] {
                 if (const FramePtr at = weak.lock(); at != nullptr) FrameDone(at);
               });
}

void SimExecution::After(absl::Duration wait, const FramePtr& frame, uint32_t index,
                         std::function<void(const FramePtr&)> action) {
  world_->Post(wait, frame->PositionOf(index),
               [weak = std::weak_ptr<SimFrame>(frame), index, action = std::move(action)] {
                 const FramePtr at = weak.lock();
                 if (at == nullptr || at->dropped || at->nodes[index].output.settled()) return;
                 action(at);
               });
}

void SimExecution::Settle(const FramePtr& frame, Cell* cell) {
  static_cast<void>(frame);
  std::vector<Waiter> waiters = std::move(cell->waiters);
  cell->waiters.clear();
  for (const Waiter& waiter : waiters) {
    const FramePtr at = waiter.frame.lock();
    if (at == nullptr || at->dropped) continue;
    const uint32_t index = waiter.index;
    switch (waiter.what) {
      case Waiter::What::kParameter:
        SettleParameter(at, index);
        break;
      case Waiter::What::kResult:
        CellSettled(at);
        break;
      case Waiter::What::kStep: {
        Node& node = at->nodes[index];
        --node.blocked;
        if (at->program->facts[at->scope][index].early) {
          After(absl::ZeroDuration(), at, index,
                [this, index](const FramePtr& there) { EvaluateJoin(there, index); });
        } else if (node.blocked == 0) {
          After(absl::ZeroDuration(), at, index,
                [this, index](const FramePtr& there) { StartNode(there, index); });
        }
        break;
      }
    }
  }
}

void SimExecution::SettleParameter(const FramePtr& frame, uint32_t index) {
  Ended ended = Read(frame->parent, *frame->lazy[index]);
  if (ended.failure) {
    // The body cannot have its capture, so it fails, once it has begun.
    world_->Post(absl::ZeroDuration(), frame->position,
                 [this, weak = std::weak_ptr<SimFrame>(frame), failure = *ended.failure] {
                   if (const FramePtr at = weak.lock(); at != nullptr) FailFrame(at, failure);
                 });
    return;
  }
  Cell& cell = frame->parameters[index];
  cell.state = ended.skipped() ? CellState::kSkipped : CellState::kCompleted;
  cell.value = std::move(ended.value);
  Settle(frame, &cell);
}

void SimExecution::CellSettled(const FramePtr& frame) {
  if (frame->dropped || frame->open == 0) return;
  if (--frame->open == 0) FrameDone(frame);
}

void SimExecution::FrameDone(const FramePtr& frame) {
  if (frame->dropped) return;
  FrameEnded(frame, frame->def().has_result() ? Read(frame, frame->def().result())
                                              : Ended::Value(NoValue()));
}

void SimExecution::FrameEnded(const FramePtr& frame, Ended ended) {
  frame->dropped = true;  // nothing more happens in it
  const FramePtr parent = frame->parent;
  const uint32_t owner = frame->owner;
  if (parent == nullptr) {
    if (ended.failure) return CloseFailed(SimStatus::kFailed, *std::move(ended.failure));
    const bool skipped = ended.skipped();
    outcome_ = std::move(ended);
    return Close(skipped ? SimStatus::kSkipped : SimStatus::kCompleted);
  }
  parent->nodes[owner].frames.erase(frame->index);
  switch (frame->role) {
    case FrameRole::kItem:
      return ItemEnded(parent, owner, frame->index, std::move(ended));
    case FrameRole::kPage:
      return PageEnded(parent, owner, std::move(ended));
    case FrameRole::kTurn:
      return TurnEnded(parent, owner, frame, std::move(ended));
    case FrameRole::kRoot:
    case FrameRole::kBody:
    case FrameRole::kCatch:
    case FrameRole::kFragment:
      return EndNode(parent, owner, std::move(ended));
  }
}

void SimExecution::FailFrame(const FramePtr& frame, Failure failure) {
  if (frame->dropped) return;
  const FramePtr held = frame;
  DropFrame(held);
  const FramePtr parent = held->parent;
  if (parent == nullptr) return CloseFailed(SimStatus::kFailed, std::move(failure));
  parent->nodes[held->owner].frames.erase(held->index);
  if (held->role == FrameRole::kItem) {
    return ItemEnded(parent, held->owner, held->index, Ended::Failed(std::move(failure)));
  }
  FailNode(parent, held->owner, std::move(failure));
}

void SimExecution::DropFrame(const FramePtr& frame) {
  frame->dropped = true;
  for (uint32_t i = 0; i < frame->nodes.size(); ++i) {
    const Node& node = frame->nodes[i];
    if (node.started && !node.output.settled()) ReportStep(frame, i, "cancelled");
    DropNode(frame, i);
  }
}

// Everything that goes on in a step ends, unless its child is to be left alone.
void SimExecution::DropNode(const FramePtr& frame, uint32_t index) {
  Node& node = frame->nodes[index];
  if (node.task != nullptr) node.task->dead = true;
  node.task.reset();
  const std::map<uint64_t, FramePtr> frames = std::move(node.frames);
  node.frames.clear();
  for (const auto& [number, inner] : frames) {
    if (!inner->dropped) DropFrame(inner);
  }
  node.map.reset();
  node.loop.reset();
  node.awaits_event = false;
  if (node.child == nullptr) return;
  SimExecution* child = std::exchange(node.child, nullptr);
  child->set_on_closed(nullptr);
  const v1::ParentClosePolicy policy = frame->step(index).child().parent_close();
  if (policy == v1::PARENT_CLOSE_POLICY_ABANDON) return;
  world_->Post(absl::ZeroDuration(), child->position(), [child, policy] {
    if (policy == v1::PARENT_CLOSE_POLICY_TERMINATE) {
      child->Terminate();
    } else {
      child->Cancel("its parent closed, or gave it up");
    }
  });
}

void SimExecution::ReportStep(const FramePtr& frame, uint32_t index, const char* state) {
  const v1::Step& step = frame->step(index);
  const auto* field = step.GetDescriptor()->FindFieldByNumber(static_cast<int>(step.kind_case()));
  world_->report().steps.push_back({.workflow_id = workflow_id_,
                                    .step = frame->PathOf(index),
                                    .kind = field == nullptr ? "" : field->name(),
                                    .state = state,
                                    .at = world_->now()});
}

Cell* SimExecution::CellOf(const FramePtr& frame, const v1::Input& input) {
  switch (input.source_case()) {
    case v1::Input::kStep:
      return &frame->nodes[input.step()].output;
    case v1::Input::kParameter:
      return &frame->parameters[input.parameter()];
    case v1::Input::kLiteral:
    case v1::Input::SOURCE_NOT_SET:
      break;
  }
  return nullptr;
}

Ended SimExecution::Source(const FramePtr& frame, const v1::Input& input) {
  const Cell* cell = CellOf(frame, input);
  if (cell == nullptr) return Ended::Value(FromProto(input.literal()));
  // What failed and is tolerated, or was cancelled, reads as skipped.
  if (cell->state != CellState::kCompleted) return Ended::Skipped();
  return {cell->value, std::nullopt};
}

Ended SimExecution::Read(const FramePtr& frame, const v1::Input& input) {
  Ended source = Source(frame, input);
  if (source.skipped()) return input.optional() ? Ended::Value(NoValue()) : source;
  if (input.pointer().empty()) return source;
  absl::StatusOr<Payload> part = ProjectStrictly(*source.value, input.pointer());
  if (part.ok()) return Ended::Value(*std::move(part));
  return Ended::Failed(OwnFailure(errors::kBadProjection, std::string(Message(part.status()))));
}

void SimExecution::EachFrame(const std::function<void(const FramePtr&)>& visit) const {
  if (root_ == nullptr || root_->dropped) return;
  std::vector<FramePtr> todo = {root_};
  while (!todo.empty()) {
    const FramePtr frame = std::move(todo.back());
    todo.pop_back();
    for (const Node& node : frame->nodes) {
      for (const auto& [index, inner] : node.frames) todo.push_back(inner);
    }
    visit(frame);
  }
}

}  // namespace flux::internal
