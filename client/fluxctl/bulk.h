// Commands that act on several executions: named one by one, or found by filters, previewed and
// confirmed. What filters find is acted on by the coordinator, in a bulk operation that we watch.
#ifndef FLUX_CLIENT_FLUXCTL_BULK_H_
#define FLUX_CLIENT_FLUXCTL_BULK_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/interrupt.h"
#include "flux/v1/bulk.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {

struct BulkVerb {
  std::string verb;  // "cancel": what is asked
  std::string past;  // "cancel requested": what an outcome says, unless the command says more
  // Of what the filters match, these are meant if no --status is given; empty: all.
  std::vector<std::string> statuses = {};
  std::string query = {};        // has to hold as well then; empty: nothing
  bool dry_run = false;          // changes nothing, so that nobody is asked, and each one answers
  v1::Operation operation = {};  // the same, as the coordinator does it to all that match
  std::string reason = {};
};

// With workflow ids (and in a dry run): calls `act` for each execution in turn and lists the
// outcomes as they come. What it answers is the outcome's text; empty: the verb's. Stops early once
// the coordinator is gone. The exit code is that of the first failure; one named execution that
// fails is the command's own error.
// With filters: shows what they match, asks, and lets the coordinator do it. The exit code is 0 if
// all of it was done.
CommandResult OnExecutions(
    Context& context, const BulkOptions& options, const BulkVerb& verb,
    const std::function<absl::StatusOr<std::string>(const v1::ExecutionRef&)>& act);

// Follows a bulk operation until it ends, over restarts of the coordinator, to the connection's
// deadline; progress goes to `to`. DeadlineExceeded, NotFound, Unavailable if it never answered,
// Cancelled when a person interrupted: then it goes on, and a note says so.
absl::StatusOr<v1::BulkOperation> FollowBulk(Context& context, const std::string& id, WatchTo to,
                                             const InterruptGuard& guard);

// The exit code that an ended operation comes to; notes say what it did not do. Prints it unless
// `told`, which says that this was done.
ExitCode FinishBulk(Context& context, const v1::BulkOperation& operation, bool told = false);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_BULK_H_
