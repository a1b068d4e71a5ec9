{{ config(materialized='incremental', incremental_strategy='append', on_schema_change='append_new_columns', pre_hook='{{ delete_from_rebuild_date() }}') }}

{{ staged_event('app_crashed') }}
