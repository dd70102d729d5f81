//! DescribeAcls: there is no authorizer, which is SECURITY_DISABLED, as on a Kafka broker without one. v1 to 3 differ in pattern types only.

use kafka_protocol::messages::DescribeAclsResponse;

use crate::call::{Call, Outcome};
use crate::names::text;
use crate::wire::errors::ErrorCode;
use crate::wire::requests::DescribeAclsRequest;

pub fn handle(call: &mut Call<'_, '_>, _request: DescribeAclsRequest<'_>) -> Outcome {
    let code = ErrorCode::SecurityDisabled;
    let response = DescribeAclsResponse::default().with_error_code(code.code()).with_error_message(Some(text(code.message())));
    Outcome::Done(call.asked.answer(&response))
}
