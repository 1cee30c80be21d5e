#include "tests/sim/fates.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/sim/script.h"

namespace flux::sim {
namespace {

// Is the path the step's own, or of something below it?
bool IsWithin(const std::string& path, const std::string& step) {
  return absl::StartsWith(path, step) && (path.size() == step.size() || path[step.size()] == '.' ||
                                          path[step.size()] == '[' || path[step.size()] == '~');
}

bool Reads(const v1::Step& step, const std::vector<bool>& of) {
  const auto hit = [&](const v1::Input& input) {
    return input.source_case() == v1::Input::kStep && of[input.step()];
  };
  for (const uint32_t after : step.after()) {
    if (of[after]) return true;
  }
  if (std::any_of(step.inputs().begin(), step.inputs().end(), hit)) return true;
  return std::any_of(step.catches().begin(), step.catches().end(), [&](const auto& clause) {
    return std::any_of(clause.captures().begin(), clause.captures().end(), hit);
  });
}

}  // namespace

std::string RealPath(std::string_view path) {
  std::string real;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '~') {
      i = std::min(path.find_first_of(".[", i), path.size());
      if (i == path.size()) break;
    }
    real.push_back(path[i]);
  }
  return real;
}

std::string TextOf(const v1::HistoryEvent& event) {
  return absl::StrCat(event.ordinal(), " ", event.type(), " ", event.step(),
                      event.attempt() > 0 ? absl::StrCat(" attempt ", event.attempt()) : "",
                      event.has_failure() ? absl::StrCat(" ", TextOf(event.failure())) : "",
                      event.has_payload() ? absl::StrCat(" ", TextOf(event.payload())) : "");
}

Fates::Fates(const std::vector<v1::HistoryEvent>& events, const Program& program) {
  migrated_ = std::any_of(events.begin(), events.end(), [](const v1::HistoryEvent& event) {
    return event.type() == "execution.migrated";
  });
  Index(migrated_ ? program.next_version : program.definition);
  for (const auto& fragment : program.fragments) Index(*fragment);
  uint64_t ordinal = 0;
  int64_t time_ms = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    const v1::HistoryEvent& event = events[i];
    if (event.ordinal() < ordinal || event.time_ms() < time_ms) {
      if (fault_.empty()) fault_ = absl::StrCat("is out of order at ", TextOf(event));
    }
    ordinal = event.ordinal();
    time_ms = event.time_ms();
    TakeOfExecution(event);
    Take(event, i);
  }
}

void Fates::TakeOfExecution(const v1::HistoryEvent& event) {
  const std::string& type = event.type();
  const bool closes = type == "execution.completed" || type == "execution.skipped" ||
                      type == "execution.failed" || type == "execution.cancelled" ||
                      type == "execution.terminated";
  const bool ends = closes || type == "step.completed" || type == "step.failed";
  if (closed_ && ends && fault_.empty()) {
    fault_ = absl::StrCat("goes on after it closed: ", TextOf(event));
  }
  if (closes) closed_ = true;
  if (type == "execution.reopened" || type == "execution.rewound" || type == "event.replayed") {
    reopened_ = reopened_ || closed_;
    closed_ = false;
  }
  if (type == "event.cancelled") {
    const std::string& detail = event.detail();  // "NAME (id ID)"
    const size_t from = detail.find(" (id ");
    if (from == std::string::npos) return;
    cancelled_events_.insert(detail.substr(from + 5, detail.find(')', from) - from - 5));
  }
}

void Fates::Index(const v1::Definition& definition) {
  for (const v1::Scope& scope : definition.scopes()) {
    for (int i = 0; i < scope.steps_size(); ++i) places_[scope.steps(i).name()] = {&scope, i};
  }
}

const Fate& Fates::Of(const std::string& path) const {
  static const Fate* const kNone = new Fate;
  const auto it = fates_.find(path);
  return it == fates_.end() ? *kNone : it->second;
}

void Fates::Ended(const v1::HistoryEvent& event) {
  // Pages of a map go by one path; so do the undo tasks of fragments that took each other's place.
  if (!fault_.empty() || absl::StrContains(event.step(), "[page]") ||
      absl::EndsWith(event.step(), ".undo")) {
    return;
  }
  const Fate& fate = Of(event.step());
  const v1::HistoryEvent* before = fate.completed != nullptr ? fate.completed : fate.skipped;
  if (before == nullptr) return;
  fault_ = absl::StrCat("has two outcomes of a step: ", TextOf(*before), " and ", TextOf(event));
}

void Fates::Take(const v1::HistoryEvent& event, uint64_t index) {
  const std::string& type = event.type();
  const std::string& path = event.step();
  if (type == "step.completed" || type == "item.completed") {
    Ended(event);
    Fate& fate = fates_[path];
    fate.completed = &event;
    fate.completed_at = index;
    const auto place = places_.find(NameOf(path));
    if (type == "step.completed" && place != places_.end() &&
        place->second.scope->steps(place->second.step).has_undo()) {
      to_undo_.push_back(path);
    }
  } else if (type == "step.skipped" || type == "item.skipped") {
    Ended(event);
    fates_[path].skipped = &event;
    fates_[path].skipped_at = index;
  } else if (type == "child.starting") {
    fates_[path].starting = &event;
    fates_[path].started = nullptr;  // another child than before
  } else if (type == "child.started" || type == "child.closed") {
    fates_[path].started = &event;
  } else if (type == "step.continued") {
    fates_[path].continued = &event;
    if (GaveWay(path)) PutAside(path);
  } else if (type == "attempt.failed") {
    fates_[path].attempts.push_back(&event);
  } else if (type == "step.failed") {
    fates_[path].failed = &event;
  } else if (type == "step.caught") {
    fates_[path].caught = &event;
  } else if (type == "step.tolerated" || type == "item.failed") {
    fates_[path].tolerated = &event;
  } else if (type == "step.cancelled") {
    fates_[path].cancelled = &event;
  } else if (type == "step.skip_asked" || type == "step.result_set") {
    Forget(path);
    fates_[path].decreed = &event;
  } else if (type == "step.retried") {
    Forget(path);
  } else if (type == "event.reread") {
    ForgetReaders(path);
    fates_[path].reread = &event;
  } else if (type == "execution.rewound" || type == "step.superseded") {
    // A step that is taken back takes back all that reads of it.
    ForgetDownstream(path);
  } else if (type == "step.undone" || type == "undo.failed") {
    undone_.push_back(path);
  }
}

bool Fates::GaveWay(const std::string& path) const {
  const Fate& fate = Of(path);
  return fate.continued != nullptr && absl::StrContains(fate.continued->detail(), " in place of ");
}

size_t Fates::EarlierFragments(const std::string& path) const {
  for (size_t count = 0;; ++count) {
    const std::string below = absl::StrCat(path, "~", count, ".");
    const auto first = fates_.lower_bound(below);
    if (first == fates_.end() || !absl::StartsWith(first->first, below)) return count;
  }
}

void Fates::PutAside(const std::string& path) {
  const std::string step = path.substr(0, path.rfind('.'));
  const std::string from = step + ".";
  const std::string to = absl::StrCat(step, "~", EarlierFragments(step), ".");
  std::vector<decltype(fates_)::node_type> nodes;
  for (auto it = fates_.lower_bound(from);
       it != fates_.end() && absl::StartsWith(it->first, from);) {
    nodes.push_back(fates_.extract(it++));
  }
  for (auto& node : nodes) {
    node.key() = to + node.key().substr(from.size());
    fates_.insert(std::move(node));
  }
}

void Fates::Forget(const std::string& path) {
  for (auto it = fates_.lower_bound(path);
       it != fates_.end() && absl::StartsWith(it->first, path);) {
    it = IsWithin(it->first, path) ? fates_.erase(it) : std::next(it);
  }
  std::erase_if(to_undo_, [&](const std::string& undo) { return IsWithin(undo, path); });
}

const Fates::Place* Fates::Find(const std::string& path, std::string* place) const {
  const std::string_view name = NameOf(path);
  *place = path.substr(0, path.size() - name.size());
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &found->second;
}

void Fates::ForgetReaders(const std::string& path) {
  std::string place;
  const Place* const found = Find(path, &place);
  if (found == nullptr) return;
  std::vector<bool> changed(static_cast<size_t>(found->scope->steps_size()), false);
  changed[static_cast<size_t>(found->step)] = true;
  for (const v1::Step& step : found->scope->steps()) {
    if (!Reads(step, changed)) continue;
    const Fate& fate = Of(place + step.name());
    const bool parked = fate.completed == nullptr && fate.skipped == nullptr;
    if (parked) Forget(place + step.name());
  }
}

void Fates::ForgetDownstream(const std::string& path) {
  std::string place;
  const Place* const found = Find(path, &place);
  if (found == nullptr) return;
  const v1::Scope& scope = *found->scope;
  std::vector<bool> in(static_cast<size_t>(scope.steps_size()), false);
  in[static_cast<size_t>(found->step)] = true;
  for (int i = 0; i < scope.steps_size(); ++i) {
    if (Reads(scope.steps(i), in)) in[static_cast<size_t>(i)] = true;
    if (in[static_cast<size_t>(i)]) Forget(place + scope.steps(i).name());
  }
}

}  // namespace flux::sim
