// Bulk operations as text, tables and blocks. Pure: the clock comes as an argument.
#ifndef FLUX_CLIENT_FLUXCTL_BULK_VIEW_H_
#define FLUX_CLIENT_FLUXCTL_BULK_VIEW_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/fluxctl/table.h"
#include "client/fluxctl/text.h"
#include "flux/v1/bulk.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {

// "running", "completed", … and the style it is shown in.
std::string BulkStateName(v1::BulkState state);
Style BulkStateStyle(v1::BulkState state);
bool HasEnded(const v1::BulkOperation& operation);

// "cancel", "retry merge", "migrate to 0123456789ab": the command it came from.
std::string OperationText(const v1::Operation& operation);
// The whole filter as one query; --query takes it back. Empty: everything.
std::string FilterText(const v1::ExecutionFilter& filter);
// "120/300 done, 2 refused, 1 failed".
std::string BulkCounts(const v1::BulkOperation& operation);

Table BulksTable(const std::vector<v1::BulkOperation>& operations, absl::Time now);
Block BulkBlock(const v1::BulkOperation& operation, absl::Time now);
// How it ended, as one row.
Table BulkOutcomeTable(const v1::BulkOperation& operation, absl::Time now);
// What the first ones answered that were refused or failed.
Table BulkErrorsTable(const v1::BulkOperation& operation);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_BULK_VIEW_H_
