// Commands that act on several executions: named one by one, or found by filters, previewed and
// confirmed.
#ifndef FLUX_CLIENT_FLUXCTL_BULK_H_
#define FLUX_CLIENT_FLUXCTL_BULK_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/fluxctl/commands.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {

struct BulkVerb {
  std::string verb;  // "cancel": what is asked
  std::string past;  // "cancel requested": what an outcome says, unless the command says more
  // Of what the filters match, these are meant if no --status is given; empty: all.
  std::vector<std::string> statuses = {};
  bool harmless = false;  // changes nothing, so that nobody is asked
};

// Calls `act` for each execution in turn and lists the outcomes as they come. What it answers is
// the outcome's text; empty: the verb's. Stops early once the coordinator is gone. The exit code is
// that of the first failure; one named execution that fails is the command's own error.
CommandResult ForEachExecution(
    Context& context, const BulkOptions& options, const BulkVerb& verb,
    const std::function<absl::StatusOr<std::string>(const v1::ExecutionRef&)>& act);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_BULK_H_
