// What a history says became of each step: the events of an execution, read in order, with what
// operators took back taken back.
#ifndef FLUX_TESTS_SIM_FATES_H_
#define FLUX_TESTS_SIM_FATES_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "flux/v1/workflow.pb.h"
#include "tests/sim/graphs.h"

namespace flux::sim {

// A path without the marks of earlier fragments: "a~0.b~12.c" is "a.b.c".
std::string RealPath(std::string_view path);

// The newest events of one step or map item, by path. Pointers are into the history; null: none.
struct Fate {
  const v1::HistoryEvent* completed = nullptr;
  const v1::HistoryEvent* reread = nullptr;  // a wait step's other data since it completed
  const v1::HistoryEvent* skipped = nullptr;
  const v1::HistoryEvent* failed = nullptr;
  const v1::HistoryEvent* caught = nullptr;
  const v1::HistoryEvent* tolerated = nullptr;
  const v1::HistoryEvent* cancelled = nullptr;
  const v1::HistoryEvent* decreed = nullptr;   // by an operator
  const v1::HistoryEvent* starting = nullptr;  // a child
  const v1::HistoryEvent* started = nullptr;   // likewise: it was there
  const v1::HistoryEvent* continued = nullptr;
  std::vector<const v1::HistoryEvent*> attempts;  // those that failed
  uint64_t completed_at = 0;                      // index in the history
  uint64_t skipped_at = 0;                        // likewise
};

// The steps of a fragment that gave way to the next are kept apart from that one's, which may have
// the same paths: those of the first that a step went on as lie below "step~0", and so on.
//
// Immutable once made. The history and the program must outlive it.
class Fates {
 public:
  Fates(const std::vector<v1::HistoryEvent>& events, const Program& program);

  // Of a path the history does not name: all null.
  const Fate& Of(const std::string& path) const;
  const std::map<std::string, Fate>& all() const { return fates_; }
  // Did the step at the path go on in place of the fragment that it lies in?
  bool GaveWay(const std::string& path) const;
  // How many fragments of the step at the path gave way to another.
  size_t EarlierFragments(const std::string& path) const;
  // Of the newest of the execution's versions, if it was migrated.
  bool migrated() const { return migrated_; }
  // It was closed once, and taken up again.
  bool reopened() const { return reopened_; }
  // Ids of delayed events that were cancelled.
  const std::set<std::string>& cancelled_events() const { return cancelled_events_; }
  // What the history says twice, or in the wrong order; empty: nothing.
  const std::string& fault() const { return fault_; }
  // Completed steps that have an undo task, in order of completion, and those undone since.
  const std::vector<std::string>& to_undo() const { return to_undo_; }
  const std::vector<std::string>& undone() const { return undone_; }

 private:
  struct Place {
    const v1::Scope* scope;
    int step;
  };

  void Index(const v1::Definition& definition);
  void Take(const v1::HistoryEvent& event, uint64_t index);
  void TakeOfExecution(const v1::HistoryEvent& event);
  // The place of the step at the path, and the path without its name; null: there is no such step.
  const Place* Find(const std::string& path, std::string* place) const;
  // The fragment that the step at the path lies in is an earlier one from now on.
  void PutAside(const std::string& path);
  // Forgets the step and all below it.
  void Forget(const std::string& path);
  // What reads of a wait step and was set aside: it runs again with the step's other data.
  void ForgetReaders(const std::string& path);
  // And all that reads of it, by way of others, too.
  void ForgetDownstream(const std::string& path);
  void Ended(const v1::HistoryEvent& event);

  std::map<std::string, Place, std::less<>> places_;  // by step name
  std::map<std::string, Fate> fates_;
  std::vector<std::string> to_undo_, undone_;
  std::set<std::string> cancelled_events_;
  bool migrated_ = false;
  bool closed_ = false;
  bool reopened_ = false;
  std::string fault_;
};

std::string TextOf(const v1::HistoryEvent& event);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_FATES_H_
