//! Alibaba Cloud DataWorks, API version 2024-05-18.
