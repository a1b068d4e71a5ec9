{{ staged_event('purchase') }}
