//! `report.v1.ReportService`.

use report_proto::{
    PostReportRequest, PostReportResponse,
    report_service_server::{ReportService, ReportServiceServer},
};
use tonic::{Request, Response, Status};

use crate::{PostError, Reports};

/// The gRPC service of the reports.
#[must_use]
pub fn service(reports: Reports) -> ReportServiceServer<impl ReportService> {
    ReportServiceServer::new(reports)
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn post_report(
        &self,
        request: Request<PostReportRequest>,
    ) -> Result<Response<PostReportResponse>, Status> {
        match self.post(request.into_inner()).await {
            Ok(()) => Ok(Response::new(PostReportResponse {
                code: 0,
                msg: "success".to_owned(),
            })),
            Err(error @ PostError::Invalid(_)) => Err(Status::invalid_argument(error.to_string())),
            Err(error @ PostError::Unconfirmed(_)) => Err(Status::unavailable(error.to_string())),
        }
    }
}
